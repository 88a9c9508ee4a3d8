"""All measures of a model's sharpness in one table, for several losses, with shared computations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.checks import check_rtol
from landscape.curvature.flatness import check_relative_flatness, relative_flatness
from landscape.loss.objective import Objective
from landscape.loss.one_model import check_one_model
from landscape.loss.units import common_unit
from landscape.loss.wrapped import of_objective
from landscape.perturbations.ascent import Neighborhood
from landscape.perturbations.gaussian import VECTORS, GaussianRises, check_draws, mean_rises
from landscape.perturbations.largest_size import check_size
from landscape.perturbations.pac_bayes import first_sigma, tolerated
from landscape.perturbations.relative_scale import scale_of
from landscape.perturbations.search import search
from landscape.perturbations.starts import starts_of, top_directions
from landscape.perturbations.worst_case import check_search
from landscape.progress import Progress, as_progress
from landscape.results.fields import LOSS_UNIT, FloatArray, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import Result


@dataclass(frozen=True)
class Measure:
    """One row of the table.

    Attributes:
        family: `"worst"`, `"average"`, `"tolerance"`, `"flatness"` or `"gradient"`.
        size: radius, standard deviation or rise; 0 for a measure without a size.
        adaptive: what the size is relative to.
        norm: norm of the neighborhood.
        source: the paper.
    """

    family: str
    size: float
    adaptive: str
    norm: str
    source: str


MEASURES: dict[str, Measure] = {
    "worst, ball": Measure("worst", 0.05, "none", "l2", "Foret et al. 2021"),
    "worst, box": Measure("worst", 0.0005, "none", "linf", "Keskar et al. 2017"),
    "worst, ball, elementwise": Measure("worst", 0.5, "elementwise", "l2", "Kwon et al. 2021"),
    "worst, ball, filter": Measure("worst", 0.05, "filter", "l2", "Kwon et al. 2021"),
    "worst, box, elementwise": Measure("worst", 0.005, "elementwise", "linf", "Andriushchenko et al. 2023"),
    "average": Measure("average", 0.01, "none", "", "Neyshabur et al. 2017"),
    "average, elementwise": Measure("average", 0.1, "elementwise", "", "Andriushchenko et al. 2023"),
    "average, filter": Measure("average", 0.01, "filter", "", "Andriushchenko et al. 2023"),
    "PAC-Bayes sigma": Measure("tolerance", 0.1, "none", "", "Jiang et al. 2020"),
    "PAC-Bayes sigma, elementwise": Measure("tolerance", 0.1, "elementwise", "", "Jiang et al. 2020"),
    "relative flatness": Measure("flatness", 0.0, "", "", "Petzka et al. 2021"),
    "gradient norm": Measure("gradient", 0.0, "", "", "l2 norm of the gradient"),
}
"""Name -> measure, with the size that is used if none is given."""

ONE_STEP = ", one step"
WORST_TOL = 0.01
"""Relative accuracy of the search for worst cases."""


@result
class SharpnessProfile(Result):
    """A table with measures of sharpness as rows and losses as columns. Each value has its error and its cost."""

    measure: NDArray[np.str_] = described("name of the measure", dims=("measure",), coordinate=True)
    loss: NDArray[np.str_] = described("name of the loss", dims=("loss",), coordinate=True)
    value: FloatArray = described(
        "value: a rise in the unit of the loss, for PAC-Bayes a standard deviation", dims=("measure", "loss")
    )
    error: FloatArray = described(
        "standard error, for PAC-Bayes half the 95% interval; NaN for lower bounds, 0 for what is exact",
        dims=("measure", "loss"),
    )
    bound: NDArray[np.str_] = described("exact, estimate or lower bound", dims=("measure",))
    size: FloatArray = described(
        "radius of the neighborhood, standard deviation of the noise, or rise borne", dims=("measure",)
    )
    adaptive: NDArray[np.str_] = described("what the size is relative to", dims=("measure",))
    source: NDArray[np.str_] = described("where the measure is from", dims=("measure",))
    gradients: NDArray[np.int64] = described("gradients spent", unit="gradients", dims=("measure",))
    evaluations: NDArray[np.int64] = described("passes over the data spent", dims=("measure",))
    products: NDArray[np.int64] = described(
        "matrix-vector products spent", unit="products", dims=("measure",)
    )
    center_loss: FloatArray = described("mean loss of the model itself", unit=LOSS_UNIT, dims=("loss",))
    samples: NDArray[np.int64] = described("samples in the mean loss", dims=("loss",))
    converged: NDArray[np.bool_] | None = described(
        "a worst case was found twice and is stationary; an estimate is within its tolerance",
        dims=("measure", "loss"),
        default=None,
    )
    loss_unit: str = loss_unit_field()


@dataclass(frozen=True)
class _Row:
    """A finished row of the table."""

    name: str
    measure: Measure
    bound: str
    value: list[float]
    error: list[float]
    converged: list[bool]
    gradients: int = 0
    evaluations: int = 0
    products: int = 0


@dataclass(frozen=True)
class _Task:
    """The losses that are measured and the budgets: the arguments of `sharpness_profile`.

    Attributes:
        shared: name of a loss -> its value and gradient at the model.
        noises: what noise is relative to -> the rises that it brings, so that measures share draws and passes.
    """

    objectives: Mapping[str, Objective]
    shared: Mapping[str, tuple[Tensor, Tensor]]
    steps: int
    restarts: int
    rtol: float
    max_draws: int
    max_products: int
    layer: str | None
    seed: int
    noises: dict[str, GaussianRises] = field(default_factory=dict)

    def noise(self, adaptive: str) -> GaussianRises:
        """The rises under noise that is relative to `adaptive`."""
        if adaptive not in self.noises:
            self.noises[adaptive] = GaussianRises(
                self.objectives, adaptive=adaptive, seed=self.seed, expected=self.max_draws
            )
        return self.noises[adaptive]


@of_objective
def sharpness_profile(
    objectives: Objective | Mapping[str, Objective],
    *,
    measures: Sequence[str] | None = None,
    sizes: Mapping[str, float] | None = None,
    steps: int = 120,
    restarts: int = 4,
    rtol: float = 0.1,
    max_draws: int = 64,
    max_products: int = 60,
    layer: str | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> SharpnessProfile:
    """Every measure of sharpness on every loss, such as those of observed, true and test labels.

    The measures share computations. All worst cases, their one-step values and the norm of the gradient use one loss
    and gradient at the model. All losses use the same draws of noise and the same passes over the data. The averages
    and the search for the PAC-Bayes sigma use the same noise where its size is equal.

    Args:
        objectives: one objective, or several objectives of one model by name.
        measures: names in `MEASURES`; all if not given.
        sizes: name -> radius, standard deviation or rise, which replaces the size in `MEASURES`. The relative flatness
            and the norm of the gradient have none.
        steps: largest number of gradients in each ascent.
        restarts: largest number of further starts of each worst case; four times this on a rugged loss, which needs 8.
        rtol: relative accuracy of averages and of the relative flatness. The ends of PAC-Bayes intervals are found to a
            twentieth of it.
        max_draws: largest number of draws of noise at each size; PAC-Bayes takes all of them.
        max_products: largest number of products for the relative flatness.
        layer: layer of the relative flatness; the last one if not given.
        seed: seed of all draws.
        progress: called with the measures done and the measures in all. True writes a line on the terminal.

    Raises:
        ValueError: an argument is out of range, or the objectives are of different models.
    """
    if isinstance(objectives, Objective):
        objectives = {"loss": objectives}
    check_one_model(objectives)
    chosen = _measures(list(MEASURES) if measures is None else measures, sizes or {})
    check_rtol(rtol)
    check_search(steps, restarts, WORST_TOL)
    check_draws(max_draws)
    report = as_progress(progress, "sharpness")
    for objective in objectives.values():
        objective.memory.check_room(VECTORS, "sharpness_profile")
        for measure in chosen.values():
            if measure.family in ("worst", "average"):
                is_squared = measure.family == "worst" and measure.norm == "l2"
                check_size("sizes", measure.size, objective.dtype, is_squared=is_squared)
        if any(measure.family == "flatness" for measure in chosen.values()):
            check_relative_flatness(objective, layer, max_products)
    shared = {name: objective.value_and_gradient() for name, objective in objectives.items()}
    task = _Task(objectives, shared, steps, restarts, rtol, max_draws, max_products, layer, seed)
    rows: list[_Row] = []
    for done, (name, measure) in enumerate(chosen.items()):
        rows += ROWS[measure.family](name, measure, task)
        report(done + 1, len(chosen))
    value = np.array([row.value for row in rows])
    # a value that is no number has no error, and has not converged
    is_known = np.isfinite(value)
    return SharpnessProfile(
        measure=np.array([row.name for row in rows]),
        loss=np.array(list(objectives)),
        value=value,
        error=np.where(is_known, np.array([row.error for row in rows]), math.nan),
        bound=np.array([row.bound for row in rows]),
        size=np.array([row.measure.size for row in rows]),
        adaptive=np.array([row.measure.adaptive for row in rows]),
        source=np.array([row.measure.source for row in rows]),
        gradients=np.array([row.gradients for row in rows]),
        evaluations=np.array([row.evaluations for row in rows]),
        products=np.array([row.products for row in rows]),
        center_loss=np.array([loss.item() for loss, _ in shared.values()]),
        samples=np.array([objective.n_samples for objective in objectives.values()]),
        converged=is_known & np.array([row.converged for row in rows]),
        loss_unit=common_unit(each.loss_fn for each in objectives.values()),
    )


def _measures(names: Sequence[str], sizes: Mapping[str, float]) -> dict[str, Measure]:
    """The measures of these names, with the sizes that the caller chose.

    Raises:
        ValueError: a measure is unknown, or named twice, or none is named; or a size belongs to none of them, to a
            measure without a size, or is not positive and finite.
    """
    if isinstance(names, str):
        raise ValueError(f"measures: must be a list of names, such as [{names!r}]")
    if not names:
        raise ValueError("measures: none is named; leave measures out for all of them")
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"measures: {twice!r} is named twice, and the table has one row for it; for two sizes of one measure call "
            "sharpness_profile twice, with sizes="
        )
    chosen = {name: _measure(name, sizes) for name in names}
    strange = [name for name in sizes if name not in chosen]
    if strange:
        raise ValueError(f"sizes: {strange[0]!r} is not among the measures asked for")
    return chosen


def _measure(name: str, sizes: Mapping[str, float]) -> Measure:
    if name not in MEASURES:
        raise ValueError(f"measures: must be of {'; '.join(MEASURES)}; got {name!r}")
    known = MEASURES[name]
    size = sizes.get(name, known.size)
    if name in sizes and not known.size:
        raise ValueError(f"sizes: {name!r} has no size; leave it out of sizes")
    if name in sizes and not 0 < size < math.inf:
        raise ValueError(f"sizes: must be positive and finite, got {size} for {name!r}")
    return replace(known, size=size)


def _worst(name: str, measure: Measure, task: _Task) -> list[_Row]:
    objectives = task.objectives
    spent = sum(objective.gradients for objective in objectives.values())
    found = []
    for loss, objective in objectives.items():
        neighborhood = Neighborhood(measure.size, measure.norm, scale_of(objective, measure.adaptive))
        starts = starts_of(objective, neighborhood, seed=task.seed)
        found.append(
            search(
                objective,
                neighborhood,
                steps=task.steps,
                restarts=task.restarts,
                tol=WORST_TOL,
                seed=task.seed,
                starts=starts,
                eigenvectors=partial(
                    top_directions, objective, neighborhood.scale, starts.eigenvectors, task.seed
                ),
                known=task.shared[loss],
            )
        )
    count = len(objectives)
    return [
        _Row(
            name,
            measure,
            "lower bound",
            [each.highest.rise for each in found],
            [math.nan] * count,
            [each.converged for each in found],
            gradients=sum(objective.gradients for objective in objectives.values()) - spent,
        ),
        # its passes are the first passes of the row above
        _Row(
            name + ONE_STEP,
            measure,
            "exact",
            [each.ascents[0].first_rise for each in found],
            [0.0] * count,
            [True] * count,
        ),
    ]


def _average(name: str, measure: Measure, task: _Task) -> list[_Row]:
    count, rises = len(task.objectives), task.noise(measure.adaptive)
    before = rises.evaluations
    value, error, _, converged = mean_rises(rises, measure.size, task.rtol, task.max_draws // 2)
    spent, flags = count * (rises.evaluations - before), [converged] * count
    return [_Row(name, measure, "estimate", value.tolist(), error.tolist(), flags, evaluations=spent)]


def _tolerance(name: str, measure: Measure, task: _Task) -> list[_Row]:
    rtol, max_pairs, rises = task.rtol, task.max_draws // 2, task.noise(measure.adaptive)
    before = rises.evaluations
    value, error, converged = [], [], []
    for column, objective in enumerate(task.objectives.values()):
        start = first_sigma(objective, measure.adaptive)
        found = tolerated(rises, column, measure.size, rtol / 2, max_pairs, start)
        value.append(found.sigma)
        error.append((found.high - found.low) / 2)
        converged.append(found.is_within(rtol))
    spent = len(task.objectives) * (rises.evaluations - before)
    return [_Row(name, measure, "estimate", value, error, converged, evaluations=spent)]


def _flatness(name: str, measure: Measure, task: _Task) -> list[_Row]:
    found = [
        relative_flatness(
            objective, task.layer, rtol=task.rtol, max_products=task.max_products, seed=task.seed
        )
        for objective in task.objectives.values()
    ]
    return [
        _Row(
            name,
            measure,
            "estimate",
            [each.value for each in found],
            [each.standard_error for each in found],
            [each.converged for each in found],
            products=sum(each.products for each in found),
        )
    ]


def _gradient(name: str, measure: Measure, task: _Task) -> list[_Row]:
    norms = [torch.linalg.vector_norm(gradient.double()).item() for _, gradient in task.shared.values()]
    count = len(norms)
    return [_Row(name, measure, "exact", norms, [0.0] * count, [True] * count, gradients=count)]


ROWS: dict[str, Callable[[str, Measure, _Task], list[_Row]]] = {
    "worst": _worst,
    "average": _average,
    "tolerance": _tolerance,
    "flatness": _flatness,
    "gradient": _gradient,
}
"""Family of measures -> (name, measure, task) -> the rows that a measure of it adds to the table."""
