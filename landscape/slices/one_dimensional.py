"""Loss and accuracy along a line in weight space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from landscape.evaluation.evaluator import checked_vector
from landscape.evaluation.for_one import with_arguments_of
from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_whole_or_sharded
from landscape.progress import Progress, as_progress
from landscape.results.fields import LOSS_UNIT, FloatArray, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import DrawnResult
from landscape.slices.axes import axis_of
from landscape.slices.directions import Directions
from landscape.slices.measured import Options, first_of, prepared


@result
class Line(DrawnResult):
    """Loss and accuracy at theta + alpha d."""

    alpha: FloatArray = described("multiple of the direction", dims=("alpha",), coordinate=True)
    loss: FloatArray = described("mean loss", unit=LOSS_UNIT, dims=("alpha",))
    accuracy: FloatArray = described("accuracy; NaN where targets are not classes", dims=("alpha",))
    center_loss: float = described("mean loss of the model itself", unit=LOSS_UNIT)
    center_accuracy: float = described("accuracy of the model itself")
    direction_norm: float = described("l2 norm of the direction")
    samples: int = described("samples in the mean loss")
    population: int = described("samples from which these were drawn", default=0)
    loss_error: FloatArray | None = described(
        "standard error of the loss as an estimate of that of the population",
        unit=LOSS_UNIT,
        dims=("alpha",),
        default=None,
    )
    rise_error: FloatArray | None = described(
        "standard error of the loss less that of the model itself, paired over the samples",
        unit=LOSS_UNIT,
        dims=("alpha",),
        default=None,
    )
    batch_norm: str = described("statistics of BatchNorm at each point", default="eval")
    calibration_samples: int = described("inputs that BatchNorm is recalibrated with", default=0)
    evaluations: int = described("points evaluated, each a pass over the data", default=0)
    direction_kind: str = described("how the direction was made", default="given")
    one_dimensional: str = described("what was done with biases and BatchNorm parameters", default="kept")
    loss_unit: str = loss_unit_field()


@of_whole_or_sharded
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
        direction: a vector (n,), or `Directions`, of which the first one is used; under FSDP2 this rank's part.
        extent: alpha runs from -extent to extent.
        steps: number of points. An odd number includes the model itself.
        alpha: the multiples, ascending; they replace `extent` and `steps`.
        batch_norm, calibration, samples, seed, progress, checkpoint, checkpoint_seconds: as for `surfaces`.

    Raises:
        ValueError: an argument is out of range.
    """
    vector = direction.vectors[:, 0] if isinstance(direction, Directions) else direction
    vector = checked_vector(first_of(objectives), vector)
    square = first_of(objectives).ranks.over_entries(vector.double().square().sum())
    axis = axis_of("alpha", alpha, extent, steps)
    options = Options(batch_norm, calibration, samples, seed, checkpoint, checkpoint_seconds)
    line_of_losses = prepared(objectives, [vector], [axis], options)
    report = as_progress(progress, "line")
    values = line_of_losses.evaluate(axis[:, None], lambda done: report(done, len(axis)))
    return {
        name: Line(
            alpha=axis.copy(),
            direction_norm=square.sqrt().item(),
            evaluations=len(axis),
            **fields,
        )
        for name, fields in line_of_losses.fields(values, axis.shape, direction).items()
    }


@of_whole_or_sharded
@with_arguments_of(lines)
def line(objective: Objective, *arguments: Any, **options: Any) -> Line:
    """Loss and accuracy along one direction through the objective's weights; arguments as for `lines`."""
    return lines({"loss": objective}, *arguments, **options)["loss"]
