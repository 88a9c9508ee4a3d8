"""A study file: its settings, checked whole before the first run."""

from __future__ import annotations

import itertools
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from analysis.checks import (
    StudyError,
    check_loss,
    check_method,
    check_model,
    check_noise,
    check_plain,
    one_of,
)
from analysis.grid import candidates, final_runs, selection_runs, slug
from ncsam import DATASETS, LOSSES, METHODS, MODELS, NOISE_KINDS
from ncsam.methods import remembers_samples
from ncsam.options import nearest, quoted

Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**7)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

MAX_RUNS = 100_000
"""More runs than this are taken for a slip of the pen."""
MAX_BYTES = 1 << 20
"""A study file is a page or two of text."""
MAX_FILE_NAME = 200
"""File systems take 255 bytes; a checkpoint and a file being written have longer names than the run's file."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NoiseSettings(_Settings):
    """Which labels are made wrong; further keys are options of the kind of noise.

    Human labels have the rate they have: `rates` then names it, or 0 for the true labels.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    kind: str = "symmetric"
    rates: Annotated[list[Share], Field(min_length=1)]

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return one_of(value, NOISE_KINDS)


class ModelSettings(_Settings):
    """The architecture; further keys are its options."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    name: str

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        return one_of(value, MODELS)


class TrainingSettings(_Settings):
    """SGD with momentum and cosine decay of the learning rate to 0 over the epochs.

    `crop` (pixels of padding), `flip` and `cutout` (side of the square) augment the training images. `precision` is
    that of the forward passes in training; measurements are made in float32. In the `probe_epochs` the method's
    perturbation, sharpness and curvature are measured on `probe_samples` of the training set.
    """

    epochs: Count
    batch_size: Count = 128
    learning_rate: Positive = 0.05
    momentum: Share = 0.9
    weight_decay: NotNegative = 1e-3
    max_gradient_norm: Positive | None = None
    crop: Annotated[int, Field(ge=0, le=64)] = 0
    flip: bool = False
    cutout: Annotated[int, Field(ge=0, le=1024)] = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    alignment_batches: Annotated[int, Field(ge=0, le=10**7)] = 2
    probe_epochs: list[Count] = []
    probe_samples: Annotated[int, Field(ge=2, le=10**7)] = 500


class LossSettings(_Settings):
    """A loss of `ncsam.losses`; further keys are its options.

    Forward correction takes the transition matrix that made the labels (`transition = "known"`) or estimates it with
    a first training on cross-entropy (`"estimated"`).
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    name: str = "cross-entropy"
    transition: Literal["known", "estimated"] | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        return one_of(value, LOSSES)


class MethodSettings(_Settings):
    """A method of `ncsam.methods`; further keys are hyper-parameters, a list being candidates to choose from.

    `mixup` is the alpha with which batches are mixed.

    With `like`, the title of another method of the study, what was chosen for that one is taken over, so that
    the two differ in nothing but their own keys.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    name: str
    # characters that the terminal's and the figures' markup would swallow are left out
    label: Annotated[str, Field(max_length=64, pattern=r"^[^\[\]$\\\x00-\x1f]*$")] = ""
    like: str | None = None
    loss: LossSettings = LossSettings()
    mixup: Positive | None = None

    @field_validator("loss", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def title(self) -> str:
        """How tables and figures call it."""
        return self.label or self.name

    @property
    def candidate_count(self) -> int:
        """How many `candidates()` there are, without making them."""
        return math.prod(len(value) for value in (self.model_extra or {}).values() if isinstance(value, list))

    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of the listed values."""
        options = self.model_extra or {}
        values = [value if isinstance(value, list) else [value] for value in options.values()]
        return [dict(zip(options, combination, strict=True)) for combination in itertools.product(*values)]


class SelectionSettings(_Settings):
    """How candidates are compared: accuracy on held-out training samples with their observed labels."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    seeds: Annotated[list[Seed], Field(min_length=1)] = [1000]


class MeasureSettings(_Settings):
    """What is measured at the end of training, on `samples` of the training set and of the test set.

    `bound`: Theorem 1 and Assumption 1 of the paper, on the whole of both sets.
    """

    samples: Count = 1000
    eigenvalues: Count = 3
    eigenvalue_tol: Positive = 0.01
    trace_rtol: Positive = 0.05
    trace_max_products: Annotated[int, Field(ge=10, le=10**6)] = 60
    sharpness_rho: Positive = 0.5
    sharpness_steps: Count = 5
    surface_rates: list[Share] = []
    surface_seeds: list[Seed] = []
    surface_extent: Positive = 1.0
    line_steps: Annotated[int, Field(ge=2, le=10_000)] = 41
    surface_steps: Annotated[int, Field(ge=2, le=1_000)] = 21
    surface_adaptive: bool = False
    surface_batch_norm: Literal["eval", "recalibrate"] = "eval"
    density_steps: Annotated[int, Field(ge=1, le=10_000)] = 30
    density_probes: Annotated[int, Field(ge=2, le=10_000)] = 5
    bound: bool = False


class Study(_Settings):
    """A study file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    dataset: str
    train_samples: Count | None = None
    test_samples: Count | None = None
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)]
    model: ModelSettings
    noise: NoiseSettings
    training: TrainingSettings
    methods: Annotated[list[MethodSettings], Field(min_length=1, max_length=1000)]
    selection: SelectionSettings = SelectionSettings()
    measure: MeasureSettings = MeasureSettings()

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str) -> str:
        return one_of(value, DATASETS)

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for field, values in (
            ("seeds", self.seeds),
            ("noise.rates", self.noise.rates),
            ("selection.seeds", self.selection.seeds),
        ):
            if len(set(values)) < len(values):
                raise ValueError(f"{field}: holds a value twice")
        trial_count = (
            len(self.noise.rates)
            * len(self.selection.seeds)
            * sum(
                method.candidate_count
                for method in self.methods
                if method.like is None and method.candidate_count > 1
            )
        )
        final_count = len(self.seeds) * len(self.noise.rates) * len(self.methods)
        if final_count + trial_count > MAX_RUNS:
            raise ValueError(
                f"seeds, noise.rates, methods: make {final_count} runs and {trial_count} to choose between "
                f"candidates; at most {MAX_RUNS} are allowed, give fewer values"
            )
        overlap = set(self.seeds) & set(self.selection.seeds)
        if overlap:
            raise ValueError(
                f"selection.seeds: {min(overlap)} is also one of the study's seeds; choose others"
            )
        folders = [slug(method.title) for method in self.methods]
        for index, folder in enumerate(folders):
            if not folder:
                raise ValueError(
                    f"methods.{index}.label: needs at least one of a-z or 0-9, for its folder's name"
                )
            if folder in folders[:index]:
                title = self.methods[index].title
                raise ValueError(
                    f"methods.{index}.label: {title!r} has the folder {folder!r} of another; rename it"
                )
        check_model(self.model.name, self.model.model_extra or {})
        check_noise(self.noise.kind, self.noise.model_extra or {})
        for index, method in enumerate(self.methods):
            field = f"methods.{index}"
            if method.like is not None:
                _check_likeness(field, method, self)
            check_method(field, method.name, method.model_extra or {}, candidates(self, method))
            check_loss(
                f"{field}.loss", method.loss.name, method.loss.model_extra or {}, method.loss.transition
            )
            needs_classes = METHODS[method.name].needs_classes
            if method.mixup is not None and (method.loss.name != "cross-entropy" or needs_classes):
                raise ValueError(
                    f"{field}.mixup: mixes classes, which needs cross-entropy and a method without temporary or true "
                    "labels"
                )
            if remembers_samples(LOSSES[method.loss.name]) and METHODS[method.name].needs_peer:
                raise ValueError(
                    f"{field}.loss: {method.loss.name!r} remembers one network's predictions, and {method.name} has "
                    "two networks"
                )
        for field in ("rates", "seeds"):
            known = self.noise.rates if field == "rates" else self.seeds
            asked = getattr(self.measure, f"surface_{field}")
            strange = [value for value in asked if value not in known]
            if strange:
                raise ValueError(f"measure.surface_{field}: {strange[0]} is not one of the study's {known}")
        empty = [field for field in ("surface_rates", "surface_seeds") if not getattr(self.measure, field)]
        if len(empty) == 1:
            raise ValueError(f"measure.{empty[0]}: is empty, so that no run would get a surface; name some")
        late = [epoch for epoch in self.training.probe_epochs if epoch > self.training.epochs]
        if late:
            raise ValueError(
                f"training.probe_epochs: {late[0]} comes after the last of {self.training.epochs} epochs"
            )
        runs = final_runs(self)
        trials = {trial.path for run in runs for trial in selection_runs(self, run)}
        if len({run.path for run in runs}) < len(runs) or len(trials) < trial_count:
            raise ValueError("noise.rates, methods: two values are too close to be told apart in file names")
        longest = max((part for path in trials for part in path.split("/")), key=len, default="")
        if len(longest) > MAX_FILE_NAME:
            raise ValueError(
                f"methods: a candidate's file name would have {len(longest)} characters, at most {MAX_FILE_NAME} are "
                "allowed; give single values for what need not be chosen"
            )
        return self


def _check_likeness(field: str, method: MethodSettings, study: Study) -> None:
    others = [m.title for m in study.methods if m.like is None]
    if method.like not in others:
        raise ValueError(f"{field}.like: no method {method.like!r} to follow; there is {', '.join(others)}")
    if method.candidate_count > 1:
        raise ValueError(f"{field}.like: leaves nothing to choose; give single values, not lists")


def read_study(path: Path) -> Study:
    """Reads and checks a study file.

    Raises:
        FileNotFoundError: no such file.
        StudyError: not a file, not TOML, or not a study; the message is one line that names file and field.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"study: {path} does not exist") from error
    except OSError as error:
        raise StudyError(f"study: cannot read {path}: {error.strerror}; name a TOML file") from error
    if len(content) > MAX_BYTES:
        raise StudyError(f"study: {path} has more than {MAX_BYTES} bytes; name a TOML file of a study")
    try:
        settings = tomllib.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise StudyError(f"{path}: not a TOML file of a study: nests too deeply") from error
    # not only TOMLDecodeError: bytes that are not UTF-8, and numbers of more digits than Python converts
    except ValueError as error:
        raise StudyError(f"{path}: not a TOML file: {error}") from error
    # what a results folder's study.toml adds to the study
    settings.pop("resolved", None)
    try:
        check_plain(settings)
        return Study.model_validate(settings)
    except ValidationError as error:
        raise StudyError(f"{path}: {_one_line(error)}") from error
    except ValueError as error:
        raise StudyError(f"{path}: {error}") from error


def _one_line(error: ValidationError) -> str:
    first, *others = error.errors()
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = _fields_at(first["loc"][:-1])
        hint = nearest(str(first["loc"][-1]), known) or f"known: {', '.join(known)}"
        message = f"unknown key; {hint}"
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] == "model_type":
        message = f"must be a table, got {quoted(first['input'])}"
    elif first["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, got {quoted(first['input'])}"
    more = f" (and {len(others)} more)" if others else ""
    return (f"{field}: {message}" if field else message) + more


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Study
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            model = annotation if isinstance(annotation, type) else MethodSettings
    return list(model.model_fields)
