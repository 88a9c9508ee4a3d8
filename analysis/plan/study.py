"""A study file as typed settings. Each value is checked by itself."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from analysis.plan.choice import OF_LOSS
from analysis.plan.errors import one_of_or_own
from ncsam import DATASETS, LOSSES, MODELS, NOISE_KINDS, SCHEDULES
from ncsam.options import quoted

Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**7)]
SEEDS_OF_A_CHOICE = 10_000
"""With per_seed, the trainings that choose for seed s have seeds from (s + 1) times this number on."""
MAX_SEED = 2**31
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED)]


class Settings(BaseModel):
    """Settings that cannot be changed. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    later: ClassVar[tuple[str, ...]] = ()
    """Settings that are newer than some finished studies. They are left out where they have their default, so that the
    configurations of these studies, and the fingerprints of their runs, stay the same."""

    @classmethod
    def later_defaults(cls) -> dict[str, Any]:
        """The defaults of the `later` settings, as plain values."""
        fields = cls.model_fields
        return {name: _plain(fields[name].get_default(call_default_factory=True)) for name in cls.later}

    def whole(self) -> dict[str, Any]:
        """All settings as plain values, also those that are left out where they have their default."""
        own = {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        return {**own, **(self.model_extra or {})}

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        defaults = type(self).model_fields
        values: dict[str, Any] = dumped(self)
        for name in self.later:
            if getattr(self, name) == defaults[name].get_default(call_default_factory=True):
                values.pop(name, None)
        return values


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.whole()
    return [_plain(part) for part in value] if isinstance(value, list) else value


class OpenSettings(Settings):
    """Settings with further keys, which are options of the choice that `name` or `kind` makes."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The further keys."""
        return self.model_extra or {}


class NoiseSettings(OpenSettings):
    """The label noise. Further keys are options of the kind of noise.

    The rate of human labels is fixed; `rates` must name it, or 0 for the true labels. With `redraw = "step"` each
    training step draws the labels of its batch anew, at the same rate.
    """

    later: ClassVar[tuple[str, ...]] = ("redraw",)
    kind: str = "symmetric"
    rates: Annotated[list[Share], Field(min_length=1)]
    redraw: Literal["never", "step"] = "never"

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str, about: ValidationInfo) -> str:
        return one_of_or_own(value, NOISE_KINDS, about.context)


class ModelSettings(OpenSettings):
    """The architecture. Further keys are its options."""

    name: str

    @field_validator("name")
    @classmethod
    def _known(cls, value: str, about: ValidationInfo) -> str:
        return one_of_or_own(value, MODELS, about.context)


class ScheduleSettings(OpenSettings):
    """A schedule of `ncsam.schedules`. Further keys are its options."""

    name: str = "cosine"

    @field_validator("name")
    @classmethod
    def _known(cls, value: str, about: ValidationInfo) -> str:
        return one_of_or_own(value, SCHEDULES, about.context)


ProbeMeasure = Literal[
    "loss", "trace", "layer_traces", "curvature_parts", "critical_sharpness", "gradient_noise"
]


class TrainingSettings(Settings):
    """The training by SGD with momentum, or by AdamW. The learning rate follows a schedule over the epochs.

    For AdamW, `momentum` is the first beta and `weight_decay` the decoupled weight decay. `crop` (pixels of padding),
    `flip` and `cutout` (side of the square) augment the training images. `precision` is that of the forward passes in
    training; measurements are made in float32. In the `probe_epochs`, the method's perturbation, sharpness and
    curvature are measured on `probe_samples` of the training set, and `probe_measures`.
    """

    later: ClassVar[tuple[str, ...]] = ("schedule", "optimizer", "probe_measures")
    epochs: Count
    optimizer: Literal["sgd", "adamw"] = "sgd"
    batch_size: Count = 128
    learning_rate: Positive = 0.05
    schedule: ScheduleSettings = ScheduleSettings()
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
    probe_measures: list[ProbeMeasure] = []

    @field_validator("schedule", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class LossSettings(OpenSettings):
    """A loss of `ncsam.losses`. Further keys are its options; a list holds candidates to choose from.

    Forward correction uses the transition matrix that made the labels (`transition = "known"`), or estimates the matrix
    by a first training with cross-entropy (`"estimated"`).
    """

    name: str = "cross-entropy"
    transition: Literal["known", "estimated"] | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, value: str, about: ValidationInfo) -> str:
        return one_of_or_own(value, LOSSES, about.context)

    @property
    def listed(self) -> dict[str, list[Any]]:
        """The options that hold candidates."""
        return {key: value for key, value in self.options.items() if isinstance(value, list)}

    @property
    def fixed(self) -> LossSettings:
        """The loss without the options that hold candidates."""
        if not self.listed:
            return self
        kept = {key: value for key, value in self.options.items() if key not in self.listed}
        # the name was checked, perhaps beside the user's parts, which a second check would not know
        return LossSettings.model_construct(name=self.name, transition=self.transition, **kept)


class MethodTraining(Settings):
    """What one method trains with in the place of the study's `training`, such as without weight decay."""

    learning_rate: Positive | None = None
    weight_decay: NotNegative | None = None
    crop: Annotated[int, Field(ge=0, le=64)] | None = None
    flip: bool | None = None
    cutout: Annotated[int, Field(ge=0, le=1024)] | None = None


class MethodSettings(OpenSettings):
    """A method of `ncsam.methods`. Further keys are hyper-parameters; a list holds candidates to choose from.

    Options of the loss may be lists too.

    `mixup` is the alpha with which batches are mixed.

    `like` is the title of another method of the study. Its chosen hyper-parameters are used here too, so that the two
    methods differ only in the keys of this one.

    `epochs` takes the place of the study's, so that methods whose steps cost more gradients can have as many in all.

    `model` and `training` take the place of single settings of the study, such as another width or weight decay.
    Labels, order of samples, and first weights of equal networks stay those of the study's other methods.
    """

    later: ClassVar[tuple[str, ...]] = ("epochs", "model", "training")
    name: str
    # without characters that the markup of terminals and figures would swallow
    label: Annotated[str, Field(max_length=64, pattern=r"^[^\[\]$\\\x00-\x1f]*$")] = ""
    like: str | None = None
    loss: LossSettings = LossSettings()
    mixup: Positive | None = None
    epochs: Count | None = None
    model: dict[str, Any] = {}
    training: MethodTraining = MethodTraining()

    @field_validator("loss", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("model")
    @classmethod
    def _named_by_a_word(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("name", ""), str):
            raise ValueError(f"name must be a word, got {quoted(value['name'])}")
        return value

    @property
    def title(self) -> str:
        """The title in tables and figures."""
        return self.label or self.name

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The options of the method, and those of its loss that hold candidates, as `loss.<option>`."""
        return {**self.options, **{f"{OF_LOSS}{key}": value for key, value in self.loss.listed.items()}}

    @property
    def candidate_count(self) -> int:
        """The number of `candidates()`, without making them."""
        return math.prod(len(value) for value in self.hyperparameters.values() if isinstance(value, list))

    def candidates(self) -> list[dict[str, Any]]:
        """All combinations of the listed values."""
        named = self.hyperparameters
        values = [value if isinstance(value, list) else [value] for value in named.values()]
        return [dict(zip(named, combination, strict=True)) for combination in itertools.product(*values)]


class SelectionSettings(Settings):
    """The comparison of candidates, by accuracy on held-out training samples with their observed labels.

    By default the seeds of a method and rate share one choice, so a lucky choice stays in the mean over seeds. With
    `per_seed` each seed of the study has a choice of its own, from trainings with seeds of their own.
    """

    later: ClassVar[tuple[str, ...]] = ("per_seed",)
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    seeds: Annotated[list[Seed], Field(min_length=1)] = [1000]
    per_seed: bool = False

    def seeds_for(self, seed: int) -> list[int]:
        """The seeds of the trainings that choose for a seed of the study."""
        shift = (seed + 1) * SEEDS_OF_A_CHOICE if self.per_seed else 0
        return [shift + each for each in self.seeds]


class MeasureSettings(Settings):
    """The measurements at the end of training, on `samples` of the training set and of the test set.

    `by_sample` measures the curvature of every sample's own loss. `bound` measures Theorem 1 and Assumption 1 of the
    paper, on the whole of both sets.
    """

    later: ClassVar[tuple[str, ...]] = ("by_sample",)
    samples: Count = 1000
    eigenvalues: Count = 3
    eigenvalue_tol: Positive = 0.01
    trace_rtol: Positive = 0.05
    trace_max_products: Annotated[int, Field(ge=10, le=10**6)] = 60
    sharpness_rho: Positive = 0.5
    sharpness_elementwise_rho: Positive = 0.5
    sharpness_filter_rho: Positive = 0.05
    sharpness_steps: Count = 120
    surface_rates: list[Share] = []
    surface_seeds: list[Seed] = []
    surface_extent: Positive = 1.0
    line_steps: Annotated[int, Field(ge=2, le=10_000)] = 41
    surface_steps: Annotated[int, Field(ge=2, le=1_000)] = 21
    surface_adaptive: bool = False
    surface_batch_norm: Literal["eval", "recalibrate"] = "eval"
    density_steps: Annotated[int, Field(ge=1, le=10_000)] = 30
    density_probes: Annotated[int, Field(ge=2, le=10_000)] = 5
    by_sample: bool = False
    bound: bool = False


class Study(Settings):
    """A study file.

    `claims` holds the ids of the claims that are judged; all claims if not given. `own_parts`, file name -> SHA-256,
    holds the files that `--with` gave; the study's folder records them. If `measured` is false, the landscapes of its
    runs are not measured, and only accuracies can be judged.
    """

    later: ClassVar[tuple[str, ...]] = ("claims", "own_parts", "measured")
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
    measured: bool = True
    claims: Annotated[list[str], Field(min_length=1)] | None = None
    own_parts: dict[str, str] = {}

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str, about: ValidationInfo) -> str:
        return one_of_or_own(value, DATASETS, about.context)

    def model_of(self, method: MethodSettings) -> ModelSettings:
        """The architecture that a method trains."""
        return self.model.model_copy(update=method.model)

    def training_of(self, method: MethodSettings) -> TrainingSettings:
        """The training of a method."""
        changes = method.training.model_dump(exclude_none=True)
        return self.training.model_copy(update={**changes, "epochs": method.epochs or self.training.epochs})

    def changed_by(self, method: MethodSettings) -> list[str]:
        """The settings of architecture and training in which a method differs from the study, but for its epochs."""
        theirs = {"model": self.model.options, "training": self.training.model_dump()}
        ours = {"model": method.model, "training": method.training.model_dump(exclude_none=True)}
        return sorted(
            f"{table}.{key}"
            for table, changes in ours.items()
            for key, value in changes.items()
            if theirs[table].get(key) != value
        )

    def candidates(self, method: MethodSettings) -> list[dict[str, Any]]:
        """The hyper-parameters that may be chosen for a method.

        If a method is `like` another one, they are the candidates of the other method in the same order, with the keys
        of this method added.
        """
        if method.like is None:
            return method.candidates()
        (added,) = method.candidates()
        other = next(m for m in self.methods if m.title == method.like)
        return [{**candidate, **added} for candidate in other.candidates()]
