"""What the loss of a method may be: a mean over samples, or one that also remembers each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeGuard

from torch import Tensor

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> the mean loss over the samples, a scalar."""


class RememberingLoss(Protocol):
    """A loss that remembers each training sample, such as ELR with its targets.

    An attribute `known_samples`, where it has one, is the size of the training set, by which positions are checked.
    """

    def __call__(self, outputs: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """The mean loss over the samples, a scalar; `indices` are the samples' positions in the training set."""

    def remember(self, outputs: Tensor, indices: Tensor) -> None:
        """Remembers the outputs of a training pass. Called once a step, at the unperturbed weights."""


TrainingLoss = LossFunction | RememberingLoss
"""The loss of a method."""


def remembers_samples(loss_fn: object) -> TypeGuard[RememberingLoss]:
    """Whether a loss, or a class of losses, remembers each sample and so takes the samples' positions."""
    return hasattr(loss_fn, "remember")
