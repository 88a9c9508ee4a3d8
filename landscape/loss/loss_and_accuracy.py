"""The result of an evaluation at one point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landscape.data.batches import Batch
from landscape.data.class_scores import are_class_scores
from landscape.data.counts import Counting
from landscape.data.reading import Chunks
from landscape.data.task import LossFunction


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy at one point. The accuracy is NaN if targets are not classes."""

    loss: float
    accuracy: float


def correct(scores: Tensor, targets: Tensor) -> Tensor:
    """Whether scores (..., samples, classes) are largest at the target. With a NaN there is no largest one."""
    return (scores.argmax(-1) == targets) & ~scores.isnan().any(-1)


def loss_and_hits(
    chunks: Chunks,
    outputs_of: Callable[[Batch], Any],
    loss_fn: LossFunction,
    counting: Counting,
    device: torch.device,
) -> Tensor:
    """The sum of the chunks' losses by their weights and the number of right predictions, in float64 (2,).

    The number is NaN if the outputs of a chunk are no scores of classes, or its targets no classes.
    """
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.float64, device=device)
    for chunk in chunks:
        inputs, targets = chunk.read()
        outputs = outputs_of(inputs)
        if chunk.weight:
            loss += loss_fn(outputs, targets).detach().double() * chunk.weight
        if are_class_scores(outputs, targets):
            hits += (correct(outputs, targets) & counting.have_labels((inputs, targets))).sum()
        else:
            hits += torch.nan
    return torch.stack([loss, hits])
