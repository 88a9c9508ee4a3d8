"""The configuration of one run: all settings that decide its result, as typed values."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from analysis.plan.choice import loss_part
from analysis.plan.errors import OWN_PARTS
from analysis.plan.study import (
    LossSettings,
    MeasureSettings,
    ModelSettings,
    SelectionSettings,
    Settings,
    TrainingSettings,
)
from ncsam.options import quoted

REDRAWN = ", redrawn each step"
"""Ends the title of a kind of noise whose labels are drawn anew at each step."""


class RunNoise(Settings):
    """The label noise of one run. `options` are those of the kind of noise."""

    kind: str
    rate: float
    options: dict[str, Any] = Field(default_factory=dict)
    later: ClassVar[tuple[str, ...]] = ("redraw",)
    redraw: Literal["never", "step"] = "never"

    @property
    def title(self) -> str:
        """The kind of noise in tables and figures. Labels that are drawn anew at each step are another kind."""
        return self.kind if self.redraw == "never" else f"{self.kind}{REDRAWN}"


class RunMethod(Settings):
    """The method of one run. `candidates` are the hyper-parameters that may be chosen.

    `changed` names the settings of architecture and training in which the method differs from its study.
    """

    later: ClassVar[tuple[str, ...]] = ("changed",)
    label: str
    name: str
    like: str | None
    candidates: list[dict[str, Any]]
    loss: LossSettings = LossSettings()
    mixup: float | None = None
    changed: list[str] = Field(default_factory=list)

    @property
    def tuned(self) -> list[str]:
        """The hyper-parameters in which the candidates differ."""
        first, *others = self.candidates
        return [name for name in first if any(other[name] != first[name] for other in others)]

    def loss_options(self, hyperparameters: dict[str, Any]) -> dict[str, Any]:
        """The options of the loss: those that are fixed, and those among chosen hyper-parameters."""
        return {**self.loss.options, **loss_part(hyperparameters)}


class RunConfig(Settings):
    """The configuration of one run.

    `own_parts` holds the SHA-256 of each file that `--with` gave, because all of the file may decide the result.

    A setting that is newer than a stored configuration has the default that keeps the earlier behavior.

    A final run is measured and judged. A run of the selection is a training that compares candidates, and is not
    measured.
    """

    later: ClassVar[tuple[str, ...]] = ("own_parts",)
    purpose: Literal["final", "selection"]
    study: str
    dataset: str
    train_samples: int | None = None
    test_samples: int | None = None
    image_size: int | None = None
    model: ModelSettings
    noise: RunNoise
    method: RunMethod
    seed: int
    training: TrainingSettings
    selection: SelectionSettings
    measure: MeasureSettings | None = None
    own_parts: list[str] | None = None

    @classmethod
    def stored(cls, plain: dict[str, Any]) -> RunConfig:
        """The configuration in a run file. Names of the user's parts need not be known."""
        return cls.model_validate(plain, context={OWN_PARTS: bool(plain.get("own_parts"))})

    def as_plain(self) -> dict[str, Any]:
        """The configuration as numbers, words, lists and tables, as a run file holds it."""
        plain = self.model_dump()
        if self.measure is None:
            del plain["measure"]
        return plain

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole configuration."""
        return digest(self.as_plain())

    @property
    def training_fingerprint(self) -> str:
        """SHA-256 of the settings that decide the training. Runs with equal digests are one training.

        The settings of `measure` do not enter, except for the radius of the sharpness that probes measure in training.
        """
        plain = self.as_plain()
        plain.pop("measure", None)
        if self.measure is not None and self.training.probe_epochs:
            plain["probe_sharpness_rho"] = self.measure.sharpness_rho
        return digest(plain)

    @property
    def has_surfaces(self) -> bool:
        """Whether lines, planes and the spectral density of this final run are measured."""
        return (
            self.measure is not None
            and self.noise.rate in self.measure.surface_rates
            and self.seed in self.measure.surface_seeds
        )

    @property
    def identity(self) -> Identity:
        """The identity of the run in its study."""
        return Identity(self.dataset, self.noise.title, self.noise.rate, self.method.label, self.seed)


class Identity(NamedTuple):
    """The identity of a run. Its fields are the first columns of the table of all runs."""

    dataset: str
    noise_kind: str
    noise_rate: float
    method: str
    seed: int


def digest(content: Any) -> str:
    """SHA-256 of the JSON of plain values, with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def difference(stored: RunConfig, planned: RunConfig) -> str:
    """The first setting in which two configurations differ, with both values, for an error."""
    one, other = ({**config.whole(), "measured": config.measure is not None} for config in (stored, planned))
    if one["measured"] != other["measured"]:
        # all of `measure` is there or is not
        del one["measure"], other["measure"]
    field, there, now = first_difference(one, other)
    return f"{field}: {quoted(there)} there, {quoted(now)} now"


def first_difference(stored: Any, planned: Any, field: str = "") -> tuple[str, Any, Any]:
    """The first field in which two plain configurations differ, and both values."""
    if isinstance(stored, dict) and isinstance(planned, dict):
        for key in sorted(stored.keys() | planned.keys()):
            # compared as text, because 1 and 1.0 are equal but not the same setting
            if _as_text(stored.get(key)) != _as_text(planned.get(key)):
                return first_difference(stored.get(key), planned.get(key), f"{field}.{key}".strip("."))
    return field, stored, planned


def _as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
