"""Loss and accuracy over a plane in weight space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from landscape.evaluation.evaluator import checked_vector
from landscape.evaluation.for_one import with_arguments_of
from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_objective
from landscape.progress import Progress, as_progress
from landscape.results.fields import LOSS_UNIT, FloatArray, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import DrawnResult
from landscape.slices.adaptive import Refined, refined
from landscape.slices.axes import axis_of, pair_of
from landscape.slices.directions import Directions
from landscape.slices.measured import Options, first_of, prepared
from landscape.slices.two_levels import refined_with_part

POINT = ("alpha", "beta")


@result
class Surface(DrawnResult):
    """Loss and accuracy at theta + alpha d1 + beta d2."""

    alpha: FloatArray = described("multiple of the first direction", dims=("alpha",), coordinate=True)
    beta: FloatArray = described("multiple of the second direction", dims=("beta",), coordinate=True)
    loss: FloatArray = described("mean loss", unit=LOSS_UNIT, dims=POINT)
    accuracy: FloatArray = described("accuracy; NaN where targets are not classes", dims=POINT)
    center_loss: float = described("mean loss of the model itself", unit=LOSS_UNIT)
    center_accuracy: float = described("accuracy of the model itself")
    direction_norms: FloatArray = described("l2 norms of the directions", dims=("direction",))
    cosine: float = described("cosine between the directions")
    samples: int = described("samples in the mean loss")
    population: int = described("samples from which these were drawn", default=0)
    angle: float = described("angle between the directions", unit="degree", default=math.nan)
    loss_error: FloatArray | None = described(
        "standard error of the loss as an estimate of that of the population",
        unit=LOSS_UNIT,
        dims=POINT,
        default=None,
    )
    rise_error: FloatArray | None = described(
        "standard error of the loss less that of the model itself, paired over the samples",
        unit=LOSS_UNIT,
        dims=POINT,
        default=None,
    )
    evaluated: NDArray[np.bool_] | None = described(
        "evaluated rather than interpolated; all points where this is missing", dims=POINT, default=None
    )
    loss_interpolation_error: FloatArray | None = described(
        "estimated error of the interpolated loss", unit=LOSS_UNIT, dims=POINT, default=None
    )
    accuracy_interpolation_error: FloatArray | None = described(
        "estimated error of the interpolated accuracy", dims=POINT, default=None
    )
    batch_norm: str = described("statistics of BatchNorm at each point", default="eval")
    calibration_samples: int = described("inputs that BatchNorm is recalibrated with", default=0)
    evaluations: int = described("points evaluated, each a pass over the data", default=0)
    evaluated_on_part: NDArray[np.bool_] | None = described(
        "evaluated on a part of the samples; missing without a part", dims=POINT, default=None
    )
    part_samples: int = described("samples of the part; 0 without a part", default=0)
    part_seed: int = described("seed with which the part was drawn", default=0)
    cost: float = described(
        "cost in passes over all samples; NaN in files older than the field", default=math.nan
    )
    direction_kind: str = described("how the directions were made", default="given")
    one_dimensional: str = described("what was done with biases and BatchNorm parameters", default="kept")
    loss_unit: str = loss_unit_field()


@of_objective
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
    part: float | None = None,
    batch_norm: str = "eval",
    calibration: Tensor | None = None,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 10.0,
) -> dict[str, Surface]:
    """Several losses of one model over the plane of two directions, from the same passes.

    Objectives with the same inputs share passes. In `surfaces({"observed": a, "clean": b, "test": c}, directions)` the
    training data with observed and with true labels share one pass, and the test data need another.

    Args:
        objectives: objectives by name, of one model at the same weights.
        directions: two vectors (n,), or `Directions`, of which the first two are used.
        extent: alpha and beta run from -extent to extent; a pair gives each axis its own.
        steps: number of points on each axis, or a pair. Odd numbers include the model itself.
        alpha: the multiples of the first direction, ascending; they replace `extent` and `steps`.
        beta: the multiples of the second direction.
        adaptive: whether some points are evaluated and the others interpolated. Each interpolated value has an estimate
            of its error, and more points are evaluated until all estimates are within the tolerance
            (`landscape.slices.adaptive`).
        tolerance: largest error of an interpolated value, relative to the range of all values.
        part: share of the samples, such as 1/8, that are drawn at random with the seed. The shape of an adaptive
            surface comes from this part, and some points on all samples correct it (`landscape.slices.two_levels`). The
            tolerance is that of the surface of all samples; with a part of fewer than some 500 samples, errors exceed
            it in some surfaces. This pays if a point on all samples takes longer than some 20 ms.
        batch_norm: `"eval"` uses BatchNorm's stored statistics at every point. `"recalibrate"` computes the statistics
            anew at each point, because moved weights make the stored ones wrong.
        calibration: inputs from which `"recalibrate"` computes the statistics; at most 2,048 inputs of the first
            objective if not given.
        samples: number of samples of each objective on which it is measured; all if not given. They are drawn once, so
            that all points share them, and the results hold standard errors.
        seed: seed of the draws of samples and of the part.
        progress: called with the points done and the points in all. True writes a line on the terminal.
        checkpoint: HDF5 file of finished points. After a kill, the same call continues from this file.
        checkpoint_seconds: seconds between two writes of the checkpoint.

    Raises:
        ValueError: an argument is out of range, there are fewer than two directions, the objectives are of different
            models, a part is asked for without `adaptive` or of samples that cannot be cut, or the checkpoint belongs
            to another surface.
    """
    vectors = _two_vectors(first_of(objectives), directions)
    extents, counts = pair_of("extent", extent), pair_of("steps", steps)
    axes = axis_of("alpha", alpha, extents[0], counts[0]), axis_of("beta", beta, extents[1], counts[1])
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance: must lie between 0 and 1, got {tolerance}")
    if part is not None and not adaptive:
        raise ValueError("part: helps an adaptive surface only; add adaptive=True, or leave out part")
    options = Options(batch_norm, calibration, samples, seed, checkpoint, checkpoint_seconds, part)
    plane = prepared(objectives, vectors, axes, options)
    report = as_progress(progress, "surface")
    shape = (len(axes[0]), len(axes[1]))
    if adaptive:
        refine = refined if part is None else refined_with_part
        found = refine(plane.evaluate, axes, tolerance, report)
    else:
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        found = Refined(plane.evaluate(grid, lambda done: report(done, len(grid))))
    norms, cosine = _norms_and_cosine(vectors)
    return {
        name: Surface(
            alpha=axes[0].copy(),
            beta=axes[1].copy(),
            direction_norms=np.array(norms),
            cosine=cosine,
            angle=math.degrees(math.acos(min(max(cosine, -1.0), 1.0))) if cosine == cosine else math.nan,
            **_of_points(found, column, shape, plane.share),
            **fields,
        )
        for column, (name, fields) in enumerate(plane.fields(found.values, shape, directions).items())
    }


@of_objective
@with_arguments_of(surfaces)
def surface(objective: Objective, *arguments: Any, **options: Any) -> Surface:
    """Loss and accuracy over the plane of two directions through the weights; arguments as for `surfaces`."""
    return surfaces({"loss": objective}, *arguments, **options)["loss"]


def _of_points(found: Refined, column: int, shape: tuple[int, int], share: float) -> dict[str, Any]:
    """The fields that say which points were evaluated, and the errors of the others.

    Args:
        found: values and errors of all losses.
        column: of the loss.
        shape: of the grid.
        share: cost of a point on the part of the samples.
    """
    errors = found.errors
    if errors is None:
        return {"evaluations": math.prod(shape), "cost": float(math.prod(shape))}
    evaluations = int(errors.evaluated.sum())
    fields = {
        "evaluated": errors.evaluated.reshape(shape),
        "loss_interpolation_error": errors.loss[:, column].reshape(shape),
        "accuracy_interpolation_error": errors.accuracy[:, column].reshape(shape),
        "evaluations": evaluations,
        "cost": float(evaluations),
    }
    if found.on_part is None:
        return fields
    cost = evaluations + share * int(found.on_part.sum())
    return {**fields, "evaluated_on_part": found.on_part.reshape(shape), "cost": cost}


def _two_vectors(objective: Objective, directions: Directions | tuple[Tensor, Tensor]) -> list[Tensor]:
    """The vectors that span the plane.

    Raises:
        ValueError: the number of directions is not two, or a vector has another length.
    """
    if isinstance(directions, Directions) and directions.vectors.shape[1] < 2:
        raise ValueError("directions: a surface needs two, got one")
    pair = list(directions.vectors.T[:2]) if isinstance(directions, Directions) else list(directions)
    if len(pair) != 2:
        raise ValueError(f"directions: a surface needs two, got {len(pair)}")
    return [checked_vector(objective, vector) for vector in pair]


def _norms_and_cosine(vectors: list[Tensor]) -> tuple[list[float], float]:
    """The norms of two vectors and the cosine between them, NaN if one is zero."""
    norms = [torch.linalg.vector_norm(vector.double()).item() for vector in vectors]
    product = (vectors[0].double() @ vectors[1].double()).item()
    return norms, product / (norms[0] * norms[1]) if norms[0] * norms[1] > 0 else math.nan
