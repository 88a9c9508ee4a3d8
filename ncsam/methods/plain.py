"""The ordinary gradient, as a method of the same form as the sharpness-aware ones."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from ncsam.methods.batches import OfBatch
from ncsam.methods.method import Method
from ncsam.methods.training_loss import TrainingLoss


class Plain(Method):
    """`method.backward(inputs, targets)` is `loss_fn(model(inputs), targets).backward()`.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        of_batch: `forward` and `count`, see `Method`.
    """

    runs_gradient_hooks = True

    def __init__(self, model: nn.Module, loss_fn: TrainingLoss, **of_batch: Unpack[OfBatch]) -> None:
        super().__init__(model, loss_fn, **of_batch)

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """The ordinary gradient."""
        return self.passes.backward(inputs, targets, indices, moves_statistics=True)
