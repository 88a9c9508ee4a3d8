"""What a method may look at between two epochs: its networks' outputs on the whole training set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

GRADIENTS_OF_A_FORWARD_PASS = 1 / 3
"""A backward pass costs about two forward passes, so that a forward pass counts as a third of a gradient."""


@dataclass(frozen=True)
class TrainingSet:
    """The training set before an epoch.

    Attributes:
        observed: int64 (n,), the observed labels.
        outputs: network -> (n, classes), its outputs in evaluation mode, without augmentation.
        batch_size: samples of a step.
        seed: of the draws of this epoch that the method makes.
        optimizer: of the training, for methods that let layers begin anew; None for others.
    """

    observed: Tensor
    outputs: Callable[[nn.Module], Tensor]
    batch_size: int
    seed: int
    optimizer: torch.optim.Optimizer | None = None

    @property
    def gradients_of_a_pass(self) -> float:
        """The cost of `outputs`, in gradients of a batch."""
        return len(self.observed) / self.batch_size * GRADIENTS_OF_A_FORWARD_PASS
