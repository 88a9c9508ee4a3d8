"""Mean losses and accuracies of several objectives at many points in weight space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from landscape.data.batches import copied_to
from landscape.evaluation.batch_norm import BatchStatistics
from landscape.evaluation.direct_pass import DirectPass
from landscape.evaluation.losses import SUMS
from landscape.evaluation.prepared_pass import PreparedPass, combination
from landscape.loss.objective import Objective
from landscape.loss.one_model import check_one_model
from landscape.loss.rows_of_outputs import have_rows
from landscape.loss.wrapped import check_whole_vectors
from landscape.model.given_vectors import vector_of
from landscape.model.precision import full_float32
from landscape.results.fields import FloatArray

BATCH_NORM = ("eval", "recalibrate")


@dataclass(frozen=True)
class Values:
    """Means over the samples, of shape (points, losses) each. The errors are None unless they were asked for.

    Attributes:
        loss: mean loss.
        accuracy: NaN where targets are not classes.
        loss_error: standard error of the loss, from the spread over the samples.
        rise_error: standard error of the rise, which is the loss minus the loss of the model itself. The losses are
            paired over the samples.
    """

    loss: FloatArray
    accuracy: FloatArray
    loss_error: FloatArray | None
    rise_error: FloatArray | None


class Evaluator:
    """Evaluates the points theta + sum_k c_k d_k with multiples c, each by one pass over each set of inputs.

    Objectives with the same inputs share their forward passes. If overhead dominates a pass, several points are
    evaluated together under `vmap`. Sums stay on the device until all points are done. The point with all multiples 0
    is the model itself; its values are those of `Objective.evaluate`, bit for bit.

    Args:
        objectives: objectives of one model at the same weights.
        vectors: the directions d_k, (n,) each.
        batch_norm: `"eval"` or `"recalibrate"`.
        calibration: inputs from which BatchNorm is recalibrated.
        errors: whether standard errors are computed.
        expected: approximate number of points. It decides what is worth preparing.

    Attributes:
        center: the values of the model itself, of shape (1, losses).
        block: number of points that are evaluated at a time.
        calibration_samples: number of inputs with which BatchNorm is recalibrated.
        inputs: number of inputs that pass through the model for a point.

    Raises:
        ValueError: the objectives are of different models or weights, or an argument is out of range.
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
        self._theta, self._ranks = first.theta, first.ranks
        # a point beside the directions
        first.memory.check_room(len(vectors) + 1, f"an evaluation along {len(vectors)} directions")
        self._vectors = [checked_vector(first, vector) for vector in vectors]
        self._statistics = None
        self.calibration_samples = 0
        if batch_norm == "recalibrate":
            check_whole_vectors(first, "batch_norm='recalibrate'")
            self._statistics = BatchStatistics(first, calibration)
            self.calibration_samples = self._statistics.samples
        self._errors = errors
        plain = self._statistics is not None
        with self._ranks.together():
            can = [_can_be_prepared(objective) for objective in self._objectives]
            groups = _that_share_passes(self._objectives, can)
            self._columns = [i for columns in groups for i in columns]
            shared = [[self._objectives[i] for i in columns] for columns in groups]
            self._passes = [
                PreparedPass(group, self._theta, self._vectors, errors, expected, plain)
                if can[columns[0]]
                else DirectPass(group[0], errors)
                for columns, group in zip(groups, shared, strict=True)
            ]
        self.inputs = sum(group[0].n_samples for group in shared) + self.calibration_samples
        self._order = torch.tensor(self._columns, device=self._theta.device).argsort()
        # ranks with more samples take smaller blocks; all must sum as many points at a time
        self.block = min(self._ranks.gathered(min(part.block for part in self._passes)))
        self.center = self._of_model()

    @full_float32()
    def __call__(self, multiples: FloatArray, progress: Callable[[int], None] | None = None) -> Values:
        """The values at the points with these multiples.

        Args:
            multiples: (points, vectors), float64.
            progress: called with the number of points done.

        Raises:
            ValueError: a multiple is no number in the dtype of the weights.
        """
        multiples = np.asarray(multiples, dtype=np.float64)
        self._check_that_they_can_be_held(multiples)
        sums = torch.zeros(
            len(multiples), len(self.names), SUMS + 1, dtype=torch.float64, device=self._theta.device
        )
        moved = np.flatnonzero((multiples != 0).any(1))
        with self._ranks.together(), torch.inference_mode():
            # copied to the device once, because each copy waits until the device has finished
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
        """The values at the weights (points, n)."""
        with self._ranks.together(), torch.inference_mode():
            parts = [self._sums(block, None) for block in theta.split(self.block)]
        return self._means(torch.cat(parts))

    def _sums(self, theta: Tensor, weights: Tensor | None) -> Tensor:
        """Sums over the samples, and the regularizer, (points, losses, `SUMS` + 1).

        `combination` describes the weights of the points.
        """
        buffers = None if self._statistics is None else self._statistics.at(theta[0])
        parts = [part.sums(theta, weights, buffers) for part in self._passes]
        sums = torch.cat(parts, 1)[:, self._order]
        penalties = sums.new_zeros(*sums.shape[:2], 1)
        for column, objective in enumerate(self._objectives):
            if objective.penalty:
                penalties[:, column, 0] = torch.stack([objective.penalty(point) for point in theta])
        return torch.cat([sums, penalties], 2)

    def _check_that_they_can_be_held(self, multiples: FloatArray) -> None:
        # in half precision torch computes sums in float32
        dtype = torch.promote_types(self._theta.dtype, torch.float32)
        farthest = float(np.abs(multiples).max(initial=0.0))
        if farthest > torch.finfo(dtype).max:
            raise ValueError(
                f"extent: points lie at {farthest:.3g} times their direction, and {dtype} ends at "
                f"{torch.finfo(dtype).max:.3g}; give a smaller extent or smaller multiples"
            )

    def _points(self, multiples: FloatArray) -> Tensor:
        points = self._theta.repeat(len(multiples), 1)
        for point, row in zip(points, multiples.tolist(), strict=True):
            for multiple, vector in zip(row, self._vectors, strict=True):
                point.add_(vector, alpha=multiple)
        return points

    def _of_model(self) -> Values:
        zero = np.zeros((1, len(self._vectors)))
        with torch.inference_mode():
            sums = None
            with self._ranks.together():
                for part in self._passes:
                    part.remember_center(
                        None if self._statistics is None else self._statistics.at(self._theta)
                    )
                if self._errors or self._statistics is not None:
                    sums = self._sums(self._points(zero), combination(zero, self._theta))
            values = None if sums is None else self._means(sums)
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
        labeled = np.array([objective.labeled for objective in self._objectives])
        weight = np.array([objective.weight for objective in self._objectives])
        total = self._ranks.over_samples(sums[:, :, :-1].contiguous()).cpu().numpy()
        loss, hits, units, squares, *moments = np.moveaxis(total, 2, 0)
        mean, accuracy = loss / weight + sums[:, :, -1].cpu().numpy(), hits / labeled
        if not self._errors:
            return Values(mean, accuracy, None, None)
        of_loss, of_square, rise, of_rise, of_rise_square = moments
        # in a sum each sample counts for one
        weights = np.where([objective.counting.is_sum for objective in self._objectives], units, weight)
        with np.errstate(invalid="ignore", divide="ignore"):
            errors = [
                _standard_error(second - 2 * center * first + center**2 * squares, units) / weight
                for center, first, second in (
                    (loss / weights, of_loss, of_square),
                    (rise / weights, of_rise, of_rise_square),
                )
            ]
        return Values(mean, accuracy, *errors)


def _standard_error(squares: FloatArray, units: FloatArray) -> FloatArray:
    """The standard error of a sum of `units` terms, from the sum of their squared deviations from the mean."""
    return np.asarray(np.sqrt(np.clip(squares, 0, None) * units / (units - 1)))


def _can_be_prepared(objective: Objective) -> bool:
    """Whether a pass can be prepared: samples of one form in memory, and a tensor of outputs with a row for each."""
    chunks = objective.chunks
    if not chunks.is_uniform or objective.differentiates or not objective.has_outputs:
        return False
    if objective.ranks.share_vectors:
        return False
    inputs, outputs_of = chunks.first(2)[0], partial(objective.outputs, objective.theta)
    with torch.inference_mode():
        outputs = outputs_of(copied_to(inputs, objective.device))
        return isinstance(outputs, Tensor) and have_rows(objective, outputs, inputs, outputs_of)


def _that_share_passes(objectives: list[Objective], can: list[bool]) -> list[list[int]]:
    """Positions of the objectives, grouped by equal inputs where passes can be prepared; others are alone."""
    groups: list[list[int]] = []
    for position, objective in enumerate(objectives):
        for group in groups:
            other = objectives[group[0]]
            can_share = can[position] and can[group[0]] and other.process_group is None
            if can_share and _have_equal_inputs(objective, other):
                group.append(position)
                break
        else:
            groups.append([position])
    return groups


def _have_equal_inputs(one: Objective, other: Objective) -> bool:
    if not (one.chunks.is_uniform and other.chunks.is_uniform):
        return False
    pairs = [tree_flatten(each.inputs) for each in (one, other)]
    (one_leaves, one_form), (other_leaves, other_form) = pairs
    return one_form == other_form and all(
        a.shape == b.shape and torch.equal(a.to(b.device), b)
        for a, b in zip(one_leaves, other_leaves, strict=True)
    )


def checked_vector(objective: Objective, vector: Tensor) -> Tensor:
    """A direction in the objective's weight space, a tensor or a NumPy array, on the objective's device.

    Raises:
        ValueError: the vector has another length.
    """
    vector = vector_of("direction", vector, objective.theta)
    if vector.shape != objective.theta.shape:
        raise ValueError(
            f"direction: must be ({objective.n_parameters},), got {tuple(vector.shape)}; a direction belongs to the "
            "weights of one model: draw it for this objective, with the same choice of parameters"
        )
    return vector.detach().to(objective.theta).contiguous()
