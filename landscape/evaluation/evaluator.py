"""Mean losses and accuracies of several objectives at many points: which points, and the means over the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.evaluation.batch_norm import BatchStatistics
from landscape.evaluation.one_model import check_one_model
from landscape.evaluation.prepared_pass import PreparedPass, combination
from landscape.loss.objective import Objective
from landscape.loss.precision import full_float32
from landscape.results.fields import FloatArray

BATCH_NORM = ("eval", "recalibrate")


@dataclass(frozen=True)
class Values:
    """Means over the samples, (points, losses) each; the errors are None unless asked for.

    Attributes:
        loss: mean loss.
        accuracy: NaN where targets are not classes.
        loss_error: standard error of the loss, from the spread over the samples.
        rise_error: standard error of the loss less that of the model itself, paired over the samples.
    """

    loss: FloatArray
    accuracy: FloatArray
    loss_error: FloatArray | None
    rise_error: FloatArray | None


class Evaluator:
    """Evaluates theta + sum_k c_k d_k for given multiples c, each point with one pass over each set of inputs.

    Objectives with the same inputs share their forward passes. Where overhead bounds a pass, several points are
    evaluated together under `vmap`. Sums stay on the device until all points are done. The point with all multiples 0
    is the model itself; its values are those of `Objective.evaluate`, bit for bit.

    Args:
        objectives: of one model at the same weights.
        vectors: d_k, (n,) each.
        batch_norm: `"eval"` or `"recalibrate"`.
        calibration: inputs from which BatchNorm is recalibrated.
        errors: whether standard errors are wanted.
        expected: about how many points are to come; this decides what is worth preparing.

    Attributes:
        center: the model's own values, of shape (1, losses).
        block: points evaluated at a time.
        calibration_samples: inputs that BatchNorm is recalibrated with.

    Raises:
        ValueError: objectives of different models or weights, or an argument out of range.
    """

    @full_float32()
    def __init__(
        self,
        objectives: Mapping[str, Objective],
        vectors: Sequence[Tensor],
        *,
        batch_norm: str = "eval",
        calibration: Tensor | None = None,
        errors: bool = False,
        expected: int,
    ) -> None:
        if batch_norm not in BATCH_NORM:
            raise ValueError(f"batch_norm: must be one of {', '.join(BATCH_NORM)}, got {batch_norm!r}")
        check_one_model(objectives)
        self.names = list(objectives)
        self._objectives = list(objectives.values())
        first = self._objectives[0]
        self._theta = first.theta
        self._vectors = [checked_vector(first, vector) for vector in vectors]
        self._statistics = None
        self.calibration_samples = 0
        if batch_norm == "recalibrate":
            self._statistics = BatchStatistics(first, calibration)
            self.calibration_samples = self._statistics.samples
        self._errors = errors
        plain = self._statistics is not None
        self._passes = [
            PreparedPass(
                [self._objectives[i] for i in columns], self._theta, self._vectors, errors, expected, plain
            )
            for columns in _with_equal_inputs(self._objectives)
        ]
        self._columns = [i for columns in _with_equal_inputs(self._objectives) for i in columns]
        self._order = torch.tensor(self._columns, device=self._theta.device).argsort()
        self.block = min(part.block for part in self._passes)
        self.center = self._of_model()

    @full_float32()
    def __call__(self, multiples: FloatArray, progress: Callable[[int], None] | None = None) -> Values:
        """The values at the points of these multiples (points, vectors).

        Args:
            multiples: in float64.
            progress: called with the number of points done.
        """
        multiples = np.asarray(multiples, dtype=np.float64)
        sums = torch.zeros(len(multiples), len(self.names), 4, dtype=torch.float64, device=self._theta.device)
        moved = np.flatnonzero((multiples != 0).any(1))
        with torch.inference_mode():
            # sent to the device once, because each transfer waits until the device has finished
            places = torch.from_numpy(moved).to(sums.device).split(self.block)
            weights = combination(multiples[moved], self._theta).split(self.block)
            for start, index, part in zip(range(0, len(moved), self.block), places, weights, strict=False):
                points = self._points(multiples[moved[start : start + self.block]])
                sums[index] = self._sums(points, part)
                if progress:
                    progress(len(multiples) - len(moved) + start + len(index))
        values = self._means(sums)
        for field in ("loss", "accuracy", "loss_error", "rise_error"):
            of_points, of_model = getattr(values, field), getattr(self.center, field)
            if of_points is not None:
                of_points[(multiples == 0).all(1)] = of_model
        return values

    @full_float32()
    def at(self, theta: Tensor) -> Values:
        """The values at any weights (points, n)."""
        with torch.inference_mode():
            parts = [self._sums(block, None) for block in theta.split(self.block)]
        return self._means(torch.cat(parts))

    def _sums(self, theta: Tensor, weights: Tensor | None) -> Tensor:
        """(points, losses, 4) sums over the samples; for the weights of points see `combination`."""
        buffers = None if self._statistics is None else self._statistics.at(theta[0])
        parts = [part.sums(theta, weights, buffers) for part in self._passes]
        return torch.cat(parts, 1)[:, self._order]

    def _points(self, multiples: FloatArray) -> Tensor:
        points = self._theta.repeat(len(multiples), 1)
        for point, row in zip(points, multiples.tolist(), strict=True):
            for multiple, vector in zip(row, self._vectors, strict=True):
                point.add_(vector, alpha=multiple)
        return points

    def _of_model(self) -> Values:
        zero = np.zeros((1, len(self._vectors)))
        with torch.inference_mode():
            for part in self._passes:
                part.remember_center(None if self._statistics is None else self._statistics.at(self._theta))
            values = (
                self._means(self._sums(self._points(zero), combination(zero, self._theta)))
                if self._errors or self._statistics is not None
                else None
            )
        if self._statistics is not None and values is not None:
            return values
        at_model = [objective.evaluate() for objective in self._objectives]
        return Values(
            np.array([[each.loss for each in at_model]]),
            np.array([[each.accuracy for each in at_model]]),
            None if values is None else values.loss_error,
            None if values is None else np.zeros_like(values.loss),
        )

    def _means(self, sums: Tensor) -> Values:
        counts = np.array([float(objective.n_samples) for objective in self._objectives])
        total = self._objectives[0].summed(sums).cpu().numpy()
        loss, hits, squares, rises = np.moveaxis(total, 2, 0)
        mean = loss / counts
        if not self._errors:
            return Values(mean, hits / counts, None, None)
        center_means = np.array([[part for each in self._passes for part in each.center_means]])
        rise = mean - center_means[:, np.argsort(self._columns)]
        return Values(
            mean,
            hits / counts,
            _standard_error(squares, mean, counts),
            _standard_error(rises, rise, counts),
        )


def _standard_error(squares: FloatArray, mean: FloatArray, counts: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.clip(squares / counts - mean**2, 0, None) * counts / (counts - 1)
        return np.asarray(np.sqrt(variance / counts))


def _with_equal_inputs(objectives: list[Objective]) -> list[list[int]]:
    """Positions of the objectives, those with the same inputs together."""
    groups: list[list[int]] = []
    for position, objective in enumerate(objectives):
        for group in groups:
            other = objectives[group[0]]
            same = other.inputs.shape == objective.inputs.shape and other.process_group is None
            if same and torch.equal(other.inputs, objective.inputs.to(other.inputs.device)):
                group.append(position)
                break
        else:
            groups.append([position])
    return groups


def checked_vector(objective: Objective, vector: Tensor) -> Tensor:
    """A direction in the objective's weight space, on its device.

    Raises:
        ValueError: of another length.
    """
    if vector.shape != objective.theta.shape:
        raise ValueError(f"direction: must be ({objective.n_parameters},), got {tuple(vector.shape)}")
    return vector.detach().to(objective.theta).contiguous()
