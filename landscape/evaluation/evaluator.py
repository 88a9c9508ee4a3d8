"""Mean losses and accuracies of several objectives at many points near the same weights, from shared passes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils.flop_counter import FlopCounterMode

from landscape.evaluation.batch_norm import BatchStatistics
from landscape.evaluation.chunks import held_chunks
from landscape.evaluation.one_model import check_one_model
from landscape.fx.forward import Forward, traced_forward
from landscape.fx.threads import TRACING
from landscape.loss.objective import Objective, are_class_scores
from landscape.loss.precision import full_float32
from landscape.results.fields import FloatArray

BATCH_NORM = ("eval", "recalibrate")

BLOCK_FLOPS = {"cpu": 2e7, "cuda": 1e10}
"""A forward pass of a chunk with fewer is bound by the overhead of its operations, which a block of points shares."""

MAX_BLOCK = 64

WORTH_TRACING = 20
"""Points from which on tracing the forward pass pays."""


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

    Objectives with the same inputs share their forward passes. Points are taken in blocks under `vmap` where a
    pass is bound by overhead. Sums stay on the device until all points are done. The point 0 is the model
    itself and takes its values from `Objective.evaluate`, bit by bit.

    Args:
        objectives: of one model at the same weights.
        vectors: d_k, (n,) each.
        batch_norm: `"eval"` or `"recalibrate"`.
        calibration: inputs from which BatchNorm is recalibrated.
        errors: whether standard errors are wanted.
        expected: about how many points are to come, by which it is decided what is worth preparing.

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
        lead = self._objectives[0]
        self._theta = lead.theta
        self._vectors = [checked_vector(lead, vector) for vector in vectors]
        self._statistics = None
        self.calibration_samples = 0
        if batch_norm == "recalibrate":
            self._statistics = BatchStatistics(lead, calibration)
            self.calibration_samples = self._statistics.samples
        self._errors = errors
        plain = self._statistics is not None
        self._passes = [
            _Pass([self._objectives[i] for i in columns], self._theta, self._vectors, errors, expected, plain)
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
            # sent to the device once: each time, it would have to finish first
            places = torch.from_numpy(moved).to(sums.device).split(self.block)
            weights = _weights(multiples[moved], self._theta).split(self.block)
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
        """(points, losses, 4) sums over the samples; for the weights of points see `_weights`."""
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
                self._means(self._sums(self._points(zero), _weights(zero, self._theta)))
                if self._errors or self._statistics is not None
                else None
            )
        if self._statistics is not None and values is not None:
            return values
        own = [objective.evaluate() for objective in self._objectives]
        return Values(
            np.array([[each.loss for each in own]]),
            np.array([[each.accuracy for each in own]]),
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
        own = np.array([[part for each in self._passes for part in each.center_means]])
        rise = mean - own[:, np.argsort(self._columns)]
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


class _Pass:
    """Passes over one set of inputs for all objectives that have it."""

    def __init__(
        self,
        objectives: list[Objective],
        theta: Tensor,
        vectors: list[Tensor],
        errors: bool,
        expected: int,
        plain: bool,
    ) -> None:
        self._objectives = objectives
        self._lead = lead = objectives[0]
        self._errors = errors
        self._center: list[list[Tensor]] = []
        self.center_means = [0.0] * len(objectives)
        self._chunks = held_chunks(objectives)
        inputs, targets = self._chunks[0]
        # tensors of inference mode, in which the caller may be, do not tell whether they were written to
        with torch.inference_mode(False), torch.no_grad(), FlopCounterMode(display=False) as counter:
            copied = inputs.clone()
            version = copied._version
            scores = lead.outputs(theta, copied)
            # a model that changes its inputs gets a copy each time
            self._changes_inputs = copied._version != version
        self._classifies = [are_class_scores(scores, target) for target in targets]
        self._sample_losses = [
            partial(_sample_losses, objective, errors and _can_be_mapped(objective, scores, target))
            for objective, target in zip(objectives, targets, strict=True)
        ]
        self.block = 1
        self._traced: dict[torch.Size, Forward] = {}
        self._first: list[tuple[Tensor, ...] | None] = [None] * len(self._chunks)
        if plain or expected < WORTH_TRACING:
            return
        with torch.inference_mode():
            try:
                self._prepare(theta, vectors)
            except Exception:
                # tracing fails in as many ways as there are models; the direct way is right for all
                self._traced = {}
            flops = counter.get_total_flops() * len(self._chunks)
            device = theta.device.type if theta.device.type in BLOCK_FLOPS else "cpu"
            # on the CPU vmap does convolutions one by one
            convolves = any(isinstance(module, nn.Conv2d) for module in lead.model.modules())
            if flops < BLOCK_FLOPS[device] and not (device == "cpu" and convolves):
                self._try_blocks(theta, vectors, int(min(MAX_BLOCK, BLOCK_FLOPS[device] / max(flops, 1) + 1)))

    def sums(self, theta: Tensor, weights: Tensor | None, buffers: dict[str, Tensor] | None) -> Tensor:
        """(points, losses, 4): loss, hits, squared loss and squared rise, summed over the samples.

        Args:
            theta: (points, n).
            weights: of the points, see `_weights`; None where they are no combinations of the vectors.
            buffers: BatchNorm's statistics at the point.
        """
        total = torch.zeros(len(theta), len(self._objectives), 4, dtype=torch.float64, device=theta.device)
        for index, (_, targets) in enumerate(self._chunks):
            scores = self._scores(theta, weights, index, buffers)
            for column, target in enumerate(targets):
                total[:, column] += self._of_chunk(scores, target, column, index)
        return total

    def remember_center(self, buffers: dict[str, Tensor] | None) -> None:
        """Keeps the loss of each sample at the model itself, with which those elsewhere are paired."""
        if not self._errors:
            return
        losses: list[list[Tensor]] = [[] for _ in self._objectives]
        for index, (_, targets) in enumerate(self._chunks):
            scores = self._direct(self._lead.theta.unsqueeze(0), self._inputs(index), buffers)
            for column, target in enumerate(targets):
                losses[column].append(self._sample_losses[column](scores, target))
        self._center = losses
        self.center_means = [torch.cat(parts, 1).mean().item() for parts in losses]

    def _of_chunk(self, scores: Tensor, target: Tensor, column: int, index: int) -> Tensor:
        zero = torch.zeros(len(scores), dtype=torch.float64, device=scores.device)
        squares = rises = zero
        if self._errors:
            each = self._sample_losses[column](scores, target)
            loss, squares = each.sum(1), each.square().sum(1)
            if self._center:
                rises = (each - self._center[column][index]).square().sum(1)
        else:
            loss = _losses(self._objectives[column], scores, target).double() * len(target)
        hits = zero + torch.nan
        if self._classifies[column]:
            hits = correct(scores, target).sum(1).double()
        return torch.stack([loss, hits, squares, rises], 1)

    def _inputs(self, index: int) -> Tensor:
        inputs = self._chunks[index][0]
        return inputs.clone() if self._changes_inputs else inputs

    def _scores(
        self, theta: Tensor, weights: Tensor | None, index: int, buffers: dict[str, Tensor] | None
    ) -> Tensor:
        """(points, samples of the chunk, ...)."""
        inputs = self._inputs(index)
        forward = self._traced.get(inputs.shape)
        if forward is None:
            return self._direct(theta, inputs, buffers)
        first = self._first[index]
        if first is None or weights is None:
            started = [forward.first(point, inputs) for point in theta]
            combined = [torch.stack(parts) for parts in zip(*started, strict=True)]
        else:
            combined = [torch.tensordot(weights, part, 1) for part in first]
        if len(theta) == 1:
            return forward.rest(theta[0], inputs, *(part[0] for part in combined)).unsqueeze(0)
        dims = (0, None, *(0 for _ in combined))
        result: Tensor = vmap(forward.rest, in_dims=dims)(theta, inputs, *combined)
        return result

    def _direct(self, theta: Tensor, inputs: Tensor, buffers: dict[str, Tensor] | None) -> Tensor:
        if buffers is not None:
            return self._lead.outputs(theta[0], inputs, buffers).unsqueeze(0)
        if len(theta) == 1:
            return self._lead.outputs(theta[0], inputs).unsqueeze(0)
        result: Tensor = vmap(self._lead.outputs, in_dims=(0, None))(theta, inputs)
        return result

    def _prepare(self, theta: Tensor, vectors: list[Tensor]) -> None:
        """Traces the forward pass, and computes what of it is linear in the weights, as far as there is memory."""
        budget = self._lead.memory_budget
        for index in range(len(self._chunks)):
            inputs = self._inputs(index)
            if inputs.shape not in self._traced:
                with self._lead.exclusive:
                    self._traced[inputs.shape] = traced_forward(
                        lambda point, chunk: self._lead.outputs(point, chunk), theta, inputs
                    )
            first = self._traced[inputs.shape].first
            parts = zip(*(first(vector, inputs) for vector in [theta, *vectors]), strict=True)
            kept = tuple(torch.stack(part) for part in parts)
            budget -= sum(part.nbytes for part in kept)
            if budget >= 0:
                self._first[index] = kept
        if not self._agrees(theta, vectors, 1):
            raise RuntimeError("the traced forward pass differs from the direct one")

    def _try_blocks(self, theta: Tensor, vectors: list[Tensor], block: int) -> None:
        """Takes points in blocks from now on if these give what single points do."""
        try:
            # the filters of warnings are the process's
            with self._lead.exclusive, TRACING, warnings.catch_warnings():
                # vmap warns of operations that it does one by one
                warnings.filterwarnings("error", message=".*performance drop because.*batching rule")
                if self._agrees(theta, vectors, block):
                    points = theta.repeat(2, 1)
                    self.sums(points, _weights(np.zeros((2, len(vectors))), points), None)
                    self.block = block
        except Exception:
            # an operation, in the model or in the loss, that vmap does not know
            return

    def _agrees(self, theta: Tensor, vectors: list[Tensor], block: int) -> bool:
        """Whether the prepared pass gives what the direct one does, a little away from the model."""
        multiples = np.full((block, len(vectors)), 0.1)
        points = theta.repeat(block, 1)
        for vector in vectors:
            points.add_(vector, alpha=0.1)
        direct = self._direct(points[:1], self._inputs(0), None)
        prepared = self._scores(points, _weights(multiples, points), 0, None)
        allowed = 1e3 * torch.finfo(theta.dtype).eps * direct.abs().max().nan_to_num(posinf=1.0)
        return torch.allclose(
            prepared, direct.expand_as(prepared), rtol=0, atol=float(allowed), equal_nan=True
        )


def _weights(multiples: FloatArray, theta: Tensor) -> Tensor:
    """What the model and each vector count for at the points, (points, 1 + vectors), in the dtype of theta."""
    return torch.from_numpy(np.insert(multiples, 0, 1.0, axis=1)).to(theta)


def correct(scores: Tensor, targets: Tensor) -> Tensor:
    """Whether the largest score is the target's, (points, samples); with a NaN among them it is no prediction."""
    return (scores.argmax(2) == targets) & ~scores.isnan().any(2)


def _losses(objective: Objective, scores: Tensor, targets: Tensor) -> Tensor:
    """The mean loss at each of the points."""
    if len(scores) == 1:
        return objective.loss_fn(scores[0], targets).unsqueeze(0)
    result: Tensor = vmap(objective.loss_fn, in_dims=(0, None))(scores, targets)
    return result


def _sample_losses(objective: Objective, mapped: bool, scores: Tensor, targets: Tensor) -> Tensor:
    """The loss of each sample at each of the points, (points, samples), in float64."""

    def of_one(score: Tensor, target: Tensor) -> Tensor:
        return objective.loss_fn(score.unsqueeze(0), target.unsqueeze(0))

    if mapped:
        result: Tensor = vmap(vmap(of_one), in_dims=(0, None))(scores, targets)
        return result.double()
    rows = [torch.stack([of_one(*pair) for pair in zip(point, targets, strict=True)]) for point in scores]
    return torch.stack(rows).double()


def _can_be_mapped(objective: Objective, scores: Tensor, targets: Tensor) -> bool:
    """Whether the loss of single samples may be computed under vmap, which some losses are too clever for."""
    some = scores[:3].unsqueeze(0)
    try:
        with torch.inference_mode():
            mapped = _sample_losses(objective, True, some, targets[:3])
            apart = _sample_losses(objective, False, some, targets[:3])
    except Exception:
        return False
    return torch.allclose(mapped, apart, rtol=1e-4, equal_nan=True)


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
