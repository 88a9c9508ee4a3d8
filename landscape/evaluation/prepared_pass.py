"""Passes over the data at many points near the same weights: traced, shared, in blocks, or direct."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from landscape.data.batches import Batch, copied_to, samples_in, tensors_in
from landscape.data.class_scores import are_class_scores
from landscape.evaluation.chunks import PassChunk, held_chunks
from landscape.evaluation.losses import SUMS, can_be_mapped, error_sums, mean_losses, sample_losses
from landscape.fx.flops import with_flops
from landscape.fx.forward import Forward, traced_forward
from landscape.fx.threads import TRACING
from landscape.loss.loss_and_accuracy import correct
from landscape.loss.objective import Objective
from landscape.results.fields import FloatArray

BLOCK_FLOPS = {"cpu": 2e7, "cuda": 1e10}
"""Overhead dominates a forward pass of a chunk with fewer floating-point operations; a block shares the overhead."""

MAX_BLOCK = 64

WORTH_TRACING = 20
"""From this number of points on, tracing the forward pass saves time."""


class PreparedPass:
    """Passes over one set of inputs, shared by all objectives that have these inputs.

    Args:
        objectives: objectives of one model, with the same inputs.
        theta: the model's weights (n,).
        vectors: the directions (n,); points are combinations of them.
        errors: whether the losses of single samples are needed.
        expected: approximate number of points.
        plain: whether all passes are direct, because buffers change from point to point.

    Attributes:
        block: number of points that are evaluated together.
    """

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
        self._objective = objectives[0]
        self._errors = errors
        self._center: list[list[Tensor]] = []
        self._chunks = held_chunks(objectives)
        inputs, targets = self._chunks[0].inputs, self._chunks[0].targets
        # the caller may be in inference mode, whose tensors do not tell whether they were written to
        with torch.inference_mode(False), torch.no_grad():
            copied = copied_to(inputs, theta.device)
            versions = [tensor._version for tensor in tensors_in(copied)]
            scores, flops = with_flops(lambda: self._objective.outputs(theta, copied))
            # a model that changes its inputs gets a copy each time
            self._changes_inputs = [tensor._version for tensor in tensors_in(copied)] != versions
        self._classifies = [are_class_scores(scores, target) for target in targets]
        self._sample_losses = [
            partial(sample_losses, objective, errors and can_be_mapped(objective, scores, target))
            for objective, target in zip(objectives, targets, strict=True)
        ]
        self.block = 1
        self._traced: dict[Any, Forward] = {}
        self._linear_parts: list[tuple[Tensor, ...] | None] = [None] * len(self._chunks)
        if plain or self._objective.writes_weights or expected < WORTH_TRACING:
            return
        with torch.inference_mode():
            try:
                self._prepare(theta, vectors)
            except Exception:
                # tracing may raise any error; direct passes are right for all models
                self._traced = {}
            flops *= len(self._chunks)
            device = theta.device.type if theta.device.type in BLOCK_FLOPS else "cpu"
            # on the CPU vmap runs convolutions one by one
            convolves = any(isinstance(module, nn.Conv2d) for module in self._objective.model.modules())
            if flops < BLOCK_FLOPS[device] and not (device == "cpu" and convolves):
                self._try_blocks(theta, vectors, int(min(MAX_BLOCK, BLOCK_FLOPS[device] / max(flops, 1) + 1)))

    def sums(self, theta: Tensor, weights: Tensor | None, buffers: dict[str, Tensor] | None) -> Tensor:
        """Sums over the samples, (points, losses, `SUMS`): weighted loss, hits, and the sums of `error_sums`.

        Args:
            theta: the points, (points, n).
            weights: coefficients of the points, see `combination`; None if points are no combinations of the vectors.
            buffers: statistics of BatchNorm at the point.
        """
        total = torch.zeros(len(theta), len(self._objectives), SUMS, dtype=torch.float64, device=theta.device)
        for index, chunk in enumerate(self._chunks):
            scores = self._scores(theta, weights, index, self._inputs(chunk), buffers)
            for column in range(len(self._objectives)):
                total[:, column] += self._of_chunk(scores, chunk, column, index)
        return total

    def remember_center(self, buffers: dict[str, Tensor] | None) -> None:
        """Keeps the loss of each sample at the model itself. Losses at other points are paired with these."""
        if not self._errors:
            return
        losses: list[list[Tensor]] = [[] for _ in self._objectives]
        for chunk in self._chunks:
            scores = self._direct(self._objective.theta.unsqueeze(0), self._inputs(chunk), buffers)
            for column, target in enumerate(chunk.targets):
                losses[column].append(self._sample_losses[column](scores, target))
        self._center = losses

    def _of_chunk(self, scores: Tensor, chunk: PassChunk, column: int, index: int) -> Tensor:
        target, each = chunk.targets[column], chunk.weights[column]
        sums = torch.zeros(len(scores), SUMS, dtype=torch.float64, device=scores.device)
        if self._errors:
            losses = self._sample_losses[column](scores, target)
            sums[:, 0] = losses[:, each > 0] @ each[each > 0]
            sums[:, 2:] = error_sums(losses, each, self._center[column][index] if self._center else None)
        elif total := chunk.totals[column]:
            sums[:, 0] = mean_losses(self._objectives[column], scores, target).double() * total
        sums[:, 1] = torch.nan
        if self._classifies[column]:
            sums[:, 1] = (correct(scores, target) & chunk.labeled[column]).sum(1)
        return sums

    def _inputs(self, chunk: PassChunk) -> Batch:
        return copied_to(chunk.inputs, self._objective.device) if self._changes_inputs else chunk.inputs

    def _scores(
        self,
        theta: Tensor,
        weights: Tensor | None,
        index: int,
        inputs: Batch,
        buffers: dict[str, Tensor] | None,
    ) -> Tensor:
        """The outputs, (points, samples of the chunk, ...)."""
        forward = self._traced.get(samples_in(inputs))
        if forward is None:
            return self._direct(theta, inputs, buffers)
        first = self._linear_parts[index]
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

    def _direct(self, theta: Tensor, inputs: Batch, buffers: dict[str, Tensor] | None) -> Tensor:
        if buffers is not None:
            return self._objective.outputs(theta[0], inputs, buffers).unsqueeze(0)
        if len(theta) == 1:
            return self._objective.outputs(theta[0], inputs).unsqueeze(0)
        result: Tensor = vmap(self._objective.outputs, in_dims=(0, None))(theta, inputs)
        return result

    def _prepare(self, theta: Tensor, vectors: list[Tensor]) -> None:
        """Traces the forward pass. Its first layers, linear in the weights, are computed and kept if memory allows."""
        budget = self._objective.memory_budget
        for index, chunk in enumerate(self._chunks):
            inputs, samples = self._inputs(chunk), samples_in(chunk.inputs)
            if samples not in self._traced:
                with self._objective.exclusive:
                    self._traced[samples] = traced_forward(
                        lambda point, chunk: self._objective.outputs(point, chunk), theta, inputs
                    )
            first = self._traced[samples].first
            parts = zip(*(first(vector, inputs) for vector in [theta, *vectors]), strict=True)
            kept = tuple(torch.stack(part) for part in parts)
            budget -= sum(part.nbytes for part in kept)
            if budget >= 0:
                self._linear_parts[index] = kept
        if not self._agrees(theta, vectors, 1):
            raise RuntimeError("the traced forward pass differs from the direct one")

    def _try_blocks(self, theta: Tensor, vectors: list[Tensor], block: int) -> None:
        """From now on evaluates points in blocks, if a block gives the same values as single points."""
        try:
            # the filters of warnings belong to the whole process
            with self._objective.exclusive, TRACING, warnings.catch_warnings():
                # vmap warns when it runs an operation once for each point
                warnings.filterwarnings("error", message=".*performance drop because.*batching rule")
                if self._agrees(theta, vectors, block):
                    points = theta.repeat(2, 1)
                    self.sums(points, combination(np.zeros((2, len(vectors))), points), None)
                    self.block = block
        except Exception:
            # vmap lacks an operation of the model or of the loss
            return

    def _agrees(self, theta: Tensor, vectors: list[Tensor], block: int) -> bool:
        """Whether the prepared pass agrees with the direct one at a point close to the model."""
        multiples = np.full((block, len(vectors)), 0.1)
        points = theta.repeat(block, 1)
        for vector in vectors:
            points.add_(vector, alpha=0.1)
        chunk = self._chunks[0]
        direct = self._direct(points[:1], self._inputs(chunk), None)
        prepared = self._scores(points, combination(multiples, points), 0, self._inputs(chunk), None)
        allowed = 1e3 * torch.finfo(theta.dtype).eps * direct.abs().max().nan_to_num(posinf=1.0)
        return torch.allclose(
            prepared, direct.expand_as(prepared), rtol=0, atol=float(allowed), equal_nan=True
        )


def combination(multiples: FloatArray, theta: Tensor) -> Tensor:
    """The coefficients of the model, 1, and of each vector, (points, 1 + vectors), in the dtype of theta."""
    return torch.from_numpy(np.insert(multiples, 0, 1.0, axis=1)).to(theta)
