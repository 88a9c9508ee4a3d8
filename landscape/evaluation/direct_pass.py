"""Passes over any data, at one point after the other and chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from landscape.data.batches import Batch, rows_of, samples_in
from landscape.data.class_scores import are_class_scores
from landscape.data.samples import Chunk
from landscape.evaluation.losses import SUMS, error_sums
from landscape.loss.loss_and_accuracy import correct
from landscape.loss.objective import Objective
from landscape.loss.rows_of_outputs import have_rows


class DirectPass:
    """Passes over the data of one objective, for streams, batches that cannot be cut, and outputs of any form.

    Args:
        objective: its loss is evaluated.
        errors: whether the losses of single samples are needed. If outputs have no rows, a batch counts as a sample.

    Attributes:
        block: number of points that are evaluated together, 1.
    """

    block = 1

    def __init__(self, objective: Objective, errors: bool) -> None:
        self._objective = objective
        self._errors = errors

    def remember_center(self, buffers: dict[str, Tensor] | None) -> None:
        """Does nothing. A stream has no order, so the model itself is evaluated again with each point."""

    def sums(self, theta: Tensor, weights: Tensor | None, buffers: dict[str, Tensor] | None) -> Tensor:
        """The sums of `PreparedPass.sums`, (points, 1, sums)."""
        del weights
        return torch.stack([self._at(point, buffers) for point in theta]).unsqueeze(1)

    def _at(self, theta: Tensor, buffers: dict[str, Tensor] | None) -> Tensor:
        total = torch.zeros(SUMS, dtype=torch.float64, device=theta.device)
        for chunk in self._objective.chunks:
            with self._objective.without_gradients():
                # the caller may be in inference mode, whose tensors cannot be differentiated
                part = self._of_chunk(theta.clone(), chunk, buffers)
            total += part
        return total

    def _of_chunk(self, theta: Tensor, chunk: Chunk, buffers: dict[str, Tensor] | None) -> Tensor:
        inputs, targets = chunk.read()
        outputs, counting = self._objective.outputs(theta, inputs, buffers), self._objective.counting
        total = torch.zeros(SUMS, dtype=torch.float64, device=theta.device)
        if chunk.weight:
            total[0] = self._objective.loss_fn(outputs, targets).detach().double() * chunk.weight
        total[1] = torch.nan
        if are_class_scores(outputs, targets):
            total[1] = (correct(outputs, targets) & counting.have_labels((inputs, targets))).sum()
        if self._errors:
            center = self._objective.outputs(self._objective.theta, chunk.read()[0])
            outputs_of = partial(self._objective.outputs, theta, buffers=buffers)
            can_be_cut = chunk.samples == samples_in(targets) and have_rows(
                self._objective, outputs, chunk.pair[0], outputs_of
            )
            each = (
                counting.of_samples(chunk.pair) if can_be_cut else torch.tensor([chunk.weight], device="cpu")
            )
            losses = torch.stack(
                [self._sample_losses(part, targets, can_be_cut) for part in (outputs, center)]
            ).to(theta.device)
            total[2:] = error_sums(losses[:1], each.to(losses), losses[1:])[0]
        return total

    def _sample_losses(self, outputs: Any, targets: Batch, can_be_cut: bool) -> Tensor:
        def parts() -> Iterator[tuple[Any, Batch]]:
            if not can_be_cut:
                yield outputs, targets
                return
            for i in range(samples_in(targets) or 0):
                yield rows_of(outputs, slice(i, i + 1)), rows_of(targets, slice(i, i + 1))

        losses = [self._objective.loss_fn(*part).detach().double().reshape(()) for part in parts()]
        return torch.stack(losses)
