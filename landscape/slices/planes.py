"""Loss and accuracy along a line and over a plane in weight space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from landscape.evaluation.evaluator import Evaluator, Values, checked_vector
from landscape.loss.objective import Objective
from landscape.progress import Progress, as_progress
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.slices.adaptive import refined
from landscape.slices.checkpoint import Checkpoint, fingerprint
from landscape.slices.directions import Directions

POINT = ("alpha", "beta")


@result
class Line:
    """Loss and accuracy at theta + alpha d."""

    alpha: FloatArray = described("multiple of the direction", dims=("alpha",), coordinate=True)
    loss: FloatArray = described("mean loss", unit="nat", dims=("alpha",))
    accuracy: FloatArray = described("accuracy; NaN where targets are not classes", dims=("alpha",))
    center_loss: float = described("mean loss of the model itself", unit="nat")
    center_accuracy: float = described("accuracy of the model itself")
    direction_norm: float = described("l2 norm of the direction")
    samples: int = described("samples in the mean loss")
    population: int = described("samples from which these were drawn", default=0)
    loss_error: FloatArray | None = described(
        "standard error of the loss as an estimate of that of the population",
        unit="nat",
        dims=("alpha",),
        default=None,
    )
    rise_error: FloatArray | None = described(
        "standard error of the loss less that of the model itself, paired over the samples",
        unit="nat",
        dims=("alpha",),
        default=None,
    )
    batch_norm: str = described("statistics of BatchNorm at each point", default="eval")
    calibration_samples: int = described("inputs that BatchNorm is recalibrated with", default=0)
    evaluations: int = described("points evaluated, each a pass over the data", default=0)
    direction_kind: str = described("how the direction was made", default="given")
    one_dimensional: str = described("what was done with biases and BatchNorm parameters", default="kept")


@result
class Surface:
    """Loss and accuracy at theta + alpha d1 + beta d2."""

    alpha: FloatArray = described("multiple of the first direction", dims=("alpha",), coordinate=True)
    beta: FloatArray = described("multiple of the second direction", dims=("beta",), coordinate=True)
    loss: FloatArray = described("mean loss", unit="nat", dims=POINT)
    accuracy: FloatArray = described("accuracy; NaN where targets are not classes", dims=POINT)
    center_loss: float = described("mean loss of the model itself", unit="nat")
    center_accuracy: float = described("accuracy of the model itself")
    direction_norms: FloatArray = described("l2 norms of the directions", dims=("direction",))
    cosine: float = described("cosine between the directions")
    samples: int = described("samples in the mean loss")
    population: int = described("samples from which these were drawn", default=0)
    angle: float = described("angle between the directions", unit="degree", default=math.nan)
    loss_error: FloatArray | None = described(
        "standard error of the loss as an estimate of that of the population",
        unit="nat",
        dims=POINT,
        default=None,
    )
    rise_error: FloatArray | None = described(
        "standard error of the loss less that of the model itself, paired over the samples",
        unit="nat",
        dims=POINT,
        default=None,
    )
    evaluated: NDArray[np.bool_] | None = described(
        "evaluated rather than interpolated; all points where this is missing", dims=POINT, default=None
    )
    loss_interpolation_error: FloatArray | None = described(
        "estimated error of the interpolated loss", unit="nat", dims=POINT, default=None
    )
    accuracy_interpolation_error: FloatArray | None = described(
        "estimated error of the interpolated accuracy", dims=POINT, default=None
    )
    batch_norm: str = described("statistics of BatchNorm at each point", default="eval")
    calibration_samples: int = described("inputs that BatchNorm is recalibrated with", default=0)
    evaluations: int = described("points evaluated, each a pass over the data", default=0)
    direction_kind: str = described("how the directions were made", default="given")
    one_dimensional: str = described("what was done with biases and BatchNorm parameters", default="kept")


def coordinates(extent: float, steps: int) -> FloatArray:
    """`steps` evenly spaced values from -extent to extent; the middle one of an odd number is exactly 0.

    Raises:
        ValueError: extent not a number, positive and finite, or fewer than 2 steps.
    """
    if not isinstance(extent, Real) or not 0 < extent < float("inf"):
        raise ValueError(f"extent: must be a number, positive and finite, got {extent!r}")
    if not isinstance(steps, Integral) or steps < 2:
        raise ValueError(f"steps: must be a whole number, at least 2, got {steps!r}")
    return extent * ((2 * np.arange(steps, dtype=np.float64) - (steps - 1)) / (steps - 1))


def line(objective: Objective, direction: Directions | Tensor, **options: Any) -> Line:
    """Loss and accuracy along one direction through the objective's weights; options as for `lines`."""
    return lines({"loss": objective}, direction, **options)["loss"]


def lines(
    objectives: Mapping[str, Objective],
    direction: Directions | Tensor,
    *,
    extent: float = 1.0,
    steps: int = 51,
    alpha: ArrayLike | None = None,
    batch_norm: str = "eval",
    calibration: Tensor | None = None,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 10.0,
) -> dict[str, Line]:
    """Several losses along one direction, from the same passes.

    Args:
        objectives: as for `surfaces`.
        direction: (n,), or `Directions`, of which the first is taken.
        extent: alpha runs from -extent to extent.
        steps: number of points; with an odd number the model itself is one of them.
        alpha: the multiples themselves, in place of extent and steps.
        batch_norm, calibration, samples, seed, progress, checkpoint, checkpoint_seconds: as for `surfaces`.

    Raises:
        ValueError: an argument out of range.
    """
    lead = _first(objectives)
    vector = direction.vectors[:, 0] if isinstance(direction, Directions) else direction
    vector = checked_vector(lead, vector)
    axis = _axis("alpha", alpha, extent, steps)
    objectives, population = _sampled(objectives, samples, seed)
    evaluator = Evaluator(
        objectives,
        [vector],
        batch_norm=batch_norm,
        calibration=calibration,
        errors=samples is not None,
        expected=len(axis),
    )
    settings = ([axis.tolist()], batch_norm, evaluator.calibration_samples)
    evaluate = _recorded(evaluator, objectives, [vector], checkpoint, checkpoint_seconds, settings)
    report = as_progress(progress, "line")
    values = evaluate(axis[:, None], lambda done: report(done, len(axis)))
    errors = _errors(values, objectives, population, (len(axis),))
    return {
        name: Line(
            alpha=axis.copy(),
            loss=values.loss[:, column].copy(),
            accuracy=values.accuracy[:, column].copy(),
            center_loss=float(evaluator.center.loss[0, column]),
            center_accuracy=float(evaluator.center.accuracy[0, column]),
            direction_norm=torch.linalg.vector_norm(vector).item(),
            samples=objective.n_samples,
            population=population[name],
            **errors[name],
            evaluations=len(axis),
            **_settings(evaluator, batch_norm, direction),
        )
        for column, (name, objective) in enumerate(objectives.items())
    }


def surface(objective: Objective, directions: Directions | tuple[Tensor, Tensor], **options: Any) -> Surface:
    """Loss and accuracy over the plane of two directions through the weights; options as for `surfaces`."""
    return surfaces({"loss": objective}, directions, **options)["loss"]


def surfaces(
    objectives: Mapping[str, Objective],
    directions: Directions | tuple[Tensor, Tensor],
    *,
    extent: float | tuple[float, float] = 1.0,
    steps: int | tuple[int, int] = 51,
    alpha: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    adaptive: bool = False,
    tolerance: float = 0.01,
    batch_norm: str = "eval",
    calibration: Tensor | None = None,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 10.0,
) -> dict[str, Surface]:
    """Several losses of one model over the plane of two directions, from the same passes.

    Training data with observed and with true labels cost one pass, test data another:
    `surfaces({"observed": a, "clean": b, "test": c}, directions)`.

    Args:
        objectives: of one model at the same weights; those with the same inputs share their forward passes.
        directions: two vectors (n,), or `Directions`, of which the first two are taken.
        extent: alpha and beta run from -extent to extent; a pair gives each axis its own.
        steps: number of points on each axis, or a pair; with odd numbers the model itself is one of them.
        alpha: the multiples of the first direction themselves, ascending, in place of extent and steps.
        beta: those of the second.
        adaptive: evaluates some of the points and interpolates the others, with an estimate of the error of
            each; more points are evaluated until the estimates are within the tolerance
            (`landscape.slices.adaptive`).
        tolerance: largest error of an interpolated value, relative to the range of all values.
        batch_norm: `"eval"`: BatchNorm with the statistics that the model holds; `"recalibrate"`: with those
            that its layers have at each point, as moved weights make the stored ones wrong.
        calibration: inputs to recalibrate with; of the first objective, at most 2,048, if not given.
        samples: measures on so many samples of each objective, drawn once, so that all points share them;
            standard errors are stored.
        seed: of that draw.
        progress: called with points done and in all; True writes a line on the terminal.
        checkpoint: HDF5 file of finished points, from which the same call goes on after a kill.
        checkpoint_seconds: between two writes of it.

    Raises:
        ValueError: an argument out of range, fewer than two directions, objectives of different models, or a
            checkpoint of another surface.
    """
    lead = _first(objectives)
    if isinstance(directions, Directions) and directions.vectors.shape[1] < 2:
        raise ValueError("directions: a surface needs two, got one")
    given = list(directions.vectors.T[:2]) if isinstance(directions, Directions) else list(directions)
    if len(given) != 2:
        raise ValueError(f"directions: a surface needs two, got {len(given)}")
    vectors = [checked_vector(lead, vector) for vector in given]
    extents, counts = _pair("extent", extent), _pair("steps", steps)
    axes = _axis("alpha", alpha, extents[0], counts[0]), _axis("beta", beta, extents[1], counts[1])
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance: must lie between 0 and 1, got {tolerance}")
    objectives, population = _sampled(objectives, samples, seed)
    shape = (len(axes[0]), len(axes[1]))
    evaluator = Evaluator(
        objectives,
        vectors,
        batch_norm=batch_norm,
        calibration=calibration,
        errors=samples is not None,
        expected=math.prod(shape),
    )
    settings = ([axis.tolist() for axis in axes], batch_norm, evaluator.calibration_samples)
    evaluate = _recorded(evaluator, objectives, vectors, checkpoint, checkpoint_seconds, settings)
    report = as_progress(progress, "surface")
    if adaptive:
        found = refined(evaluate, axes, tolerance, report)
        values, extra = found.values, found.errors
    else:
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        values, extra = evaluate(grid, lambda done: report(done, len(grid))), None
    errors = _errors(values, objectives, population, shape)
    norms = [torch.linalg.vector_norm(vector.double()).item() for vector in vectors]
    product = (vectors[0].double() @ vectors[1].double()).item()
    cosine = product / (norms[0] * norms[1]) if norms[0] * norms[1] > 0 else math.nan
    return {
        name: Surface(
            alpha=axes[0].copy(),
            beta=axes[1].copy(),
            loss=values.loss[:, column].reshape(shape),
            accuracy=values.accuracy[:, column].reshape(shape),
            center_loss=float(evaluator.center.loss[0, column]),
            center_accuracy=float(evaluator.center.accuracy[0, column]),
            direction_norms=np.array(norms),
            cosine=cosine,
            angle=math.degrees(math.acos(min(max(cosine, -1.0), 1.0))) if cosine == cosine else math.nan,
            samples=objective.n_samples,
            population=population[name],
            evaluated=None if extra is None else extra.evaluated.reshape(shape),
            loss_interpolation_error=None if extra is None else extra.loss[:, column].reshape(shape),
            accuracy_interpolation_error=None if extra is None else extra.accuracy[:, column].reshape(shape),
            **errors[name],
            evaluations=math.prod(shape) if extra is None else int(extra.evaluated.sum()),
            **_settings(evaluator, batch_norm, directions),
        )
        for column, (name, objective) in enumerate(objectives.items())
    }


def _first(objectives: Mapping[str, Objective]) -> Objective:
    if not objectives:
        raise ValueError("objectives: holds none")
    return next(iter(objectives.values()))


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list):
        return value, value
    if len(value) != 2:
        raise ValueError(f"{name}: must be one number for both axes or a pair, got {value!r}")
    return value[0], value[1]


def _axis(name: str, given: ArrayLike | None, extent: float, steps: int) -> FloatArray:
    if given is None:
        return coordinates(extent, steps)
    axis = np.array(given, dtype=np.float64)
    if axis.ndim != 1 or len(axis) < 2 or not np.isfinite(axis).all() or not (np.diff(axis) > 0).all():
        raise ValueError(f"{name}: must be at least 2 finite, ascending multiples, got {given!r}")
    return axis


def _sampled(
    objectives: Mapping[str, Objective], samples: int | None, seed: int
) -> tuple[dict[str, Objective], dict[str, int]]:
    """The objectives of `samples` samples each, the same ones for all with as many, and how many there were."""
    population = {name: objective.n_samples for name, objective in objectives.items()}
    if samples is None:
        return dict(objectives), population
    chosen = {}
    for name, objective in objectives.items():
        if not 2 <= samples <= objective.n_samples:
            raise ValueError(
                f"samples: must lie between 2 and the {objective.n_samples} there are, got {samples}"
            )
        if objective.process_group is not None:
            raise ValueError(
                "samples: with a process group, give each rank's objective fewer samples instead"
            )
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(objective.n_samples, generator=generator)
        chosen[name] = objective.subset(samples=order[:samples].sort().values)
    return chosen, population


def _recorded(
    evaluator: Evaluator,
    objectives: Mapping[str, Objective],
    vectors: list[Tensor],
    checkpoint: str | Path | None,
    every: float,
    settings: Any,
) -> Callable[[FloatArray, Callable[[int], None] | None], Values]:
    """The evaluator, with its finished points kept in the checkpoint's file if one is given."""
    if checkpoint is None:
        return evaluator
    if _first(objectives).process_group is not None:
        raise ValueError("checkpoint: cannot be written by several ranks")
    return Checkpoint(checkpoint, evaluator, fingerprint(objectives, vectors, settings), every=every)


def _errors(
    values: Values, objectives: Mapping[str, Objective], population: Mapping[str, int], shape: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """The standard errors of each loss, less for what was drawn of a finite population (Cochran 1977, 2.2)."""
    result: dict[str, dict[str, Any]] = {}
    for column, (name, objective) in enumerate(objectives.items()):
        left = math.sqrt(1 - objective.n_samples / population[name])
        result[name] = {
            field: None if errors is None else left * errors[:, column].reshape(shape)
            for field, errors in (("loss_error", values.loss_error), ("rise_error", values.rise_error))
        }
    return result


def _settings(evaluator: Evaluator, batch_norm: str, directions: Any) -> dict[str, Any]:
    known = isinstance(directions, Directions)
    return {
        "batch_norm": batch_norm,
        "calibration_samples": evaluator.calibration_samples,
        "direction_kind": directions.kind if known else "given",
        "one_dimensional": directions.one_dimensional if known else "kept",
    }
