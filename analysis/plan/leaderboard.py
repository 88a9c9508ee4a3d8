"""A leaderboard file: methods, data sets, kinds of noise. Each data set with a kind of noise is a study of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from analysis.plan.choice import method_part
from analysis.plan.consistency import check_consistency
from analysis.plan.errors import StudyError
from analysis.plan.grid import slug
from analysis.plan.options import check_method
from analysis.plan.plain_values import check_plain
from analysis.plan.reading import one_line, read_toml, with_place
from analysis.plan.study import (
    Count,
    MethodSettings,
    ModelSettings,
    NoiseSettings,
    Positive,
    Seed,
    SelectionSettings,
    Settings,
    Study,
    TrainingSettings,
)

OVER_ALL = "all"
"""The name of the ranking over all data sets, which no data set may have."""


class RankedMethod(MethodSettings):
    """A method of the leaderboard.

    `cost` is the number of gradients that a step takes, to which the epochs are fitted. A `control` knows which labels
    are wrong; it is shown, but has no rank. `without` names the data sets that the method cannot be trained on.
    """

    cost: Positive = 1.0
    control: bool = False
    without: list[str] = Field(default_factory=list)

    @field_validator("epochs")
    @classmethod
    def _not_given(cls, value: int | None) -> None:
        if value is not None:
            raise ValueError("follows from cost; leave it out")


class RankedData(Settings):
    """A data set of the leaderboard. `training.epochs` is the budget, in epochs of a method of cost 1.

    `label` tells two entries of one data set apart.
    """

    dataset: str
    label: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,31})?$")] = ""
    train_samples: Count | None = None
    test_samples: Count | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)]
    model: ModelSettings
    training: TrainingSettings
    noise: Annotated[list[NoiseSettings], Field(min_length=1)]

    @property
    def title(self) -> str:
        """The name of the data set in tables."""
        return self.label or self.dataset


class Leaderboard(Settings):
    """A leaderboard file. Hyper-parameters are chosen on validation samples with their observed labels."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
    data: Annotated[list[RankedData], Field(min_length=1)]
    methods: Annotated[list[RankedMethod], Field(min_length=2)]
    selection: SelectionSettings = SelectionSettings()

    def method(self, title: str) -> RankedMethod:
        """The method of a title."""
        return next(method for method in self.methods if method.title == title)


def read_leaderboard(path: Path) -> Leaderboard:
    """Reads and checks a leaderboard file.

    Raises:
        FileNotFoundError: no such file.
        StudyError: not a file, not TOML, or no leaderboard; the message is one line that names file and field.
    """
    settings = read_toml(path)
    try:
        check_plain(settings)
        found = Leaderboard.model_validate(settings)
        _check_entries(found)
        list(studies_of(found))
    except ValidationError as error:
        raise StudyError(f"{path}: {with_place(one_line(error, Leaderboard))}") from error
    except ValueError as error:
        raise StudyError(f"{path}: {with_place(str(error))}") from error
    return found


def studies_of(board: Leaderboard) -> Iterator[tuple[str, RankedData, Study]]:
    """The studies of a leaderboard: name of the folder, entry of the data set, study.

    Raises:
        ValueError: the settings of a study do not fit each other.
    """
    for data in board.data:
        for noise in data.noise:
            folder = slug(f"{data.title}-{noise.kind}")
            methods = [
                _method_on(data, method) for method in board.methods if data.title not in method.without
            ]
            study = Study(
                name=f"{board.name}-{folder}"[:64],
                methods=methods,
                noise=noise,
                selection=board.selection,
                measured=False,
                **data.model_dump(exclude={"label", "noise", "model", "training"}),
                model=data.model,
                training=data.training,
            )
            try:
                check_consistency(study)
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from error
            yield folder, data, study


def _method_on(data: RankedData, method: RankedMethod) -> MethodSettings:
    """The method of a study, with the epochs that the budget allows."""
    own = {key: getattr(method, key) for key in MethodSettings.model_fields if key != "epochs"}
    epochs = max(1, round(data.training.epochs / method.cost))
    return MethodSettings(**own, **method.options, epochs=None if epochs == data.training.epochs else epochs)


def _check_entries(board: Leaderboard) -> None:
    folders = [slug(f"{data.title}-{noise.kind}") for data in board.data for noise in data.noise]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"data.label: {folder!r} is there twice; give one of both a label")
    titles = {data.title for data in board.data}
    if OVER_ALL in titles:
        raise ValueError(f"data.label: {OVER_ALL!r} names the ranking over all data sets; give another label")
    for place, method in enumerate(board.methods):
        # here, because the number of a method in a study may be another one
        candidates = [] if method.like is not None else map(method_part, method.candidates())
        check_method(f"methods.{place}", method.name, method.options, candidates)
        unknown = sorted(set(method.without) - titles)
        if unknown:
            raise ValueError(
                f"methods.{place}.without: {unknown[0]!r} is none of the data sets {', '.join(sorted(titles))}"
            )
