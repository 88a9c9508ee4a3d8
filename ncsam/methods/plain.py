"""No perturbation: the ordinary gradient, in the same form as the sharpness-aware methods."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ncsam.methods.passes import LossFunction, Passes, RememberingLoss


class Plain:
    """`method.backward(inputs, targets)` is `loss_fn(model(inputs), targets).backward()`.

    Args:
        model: in training mode; DistributedDataParallel and compiled models too.
        loss_fn: (outputs, targets) -> mean loss over the samples.

    Attributes:
        passes: precision, loss scaling, micro-batches and ranks; set them there.
        progress: share of the training that is done, 0 to 1; `fit()` sets it.
        gradient_count: gradients spent so far, in gradients of a batch.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction | RememberingLoss) -> None:
        self.passes = Passes(model, loss_fn)
        self.progress: float | None = None
        self.gradient_count = 0.0

    @property
    def model(self) -> nn.Module:
        """The model whose gradient is filled."""
        return self.passes.model

    @property
    def loss_fn(self) -> LossFunction | RememberingLoss:
        """The training loss."""
        return self.passes.loss_fn

    def networks(self) -> list[nn.Module]:
        """What is trained: the model, and others that a method trains beside it."""
        return [self.model]

    def parameters(self) -> Iterable[nn.Parameter]:
        """What an optimizer has to train."""
        return itertools.chain.from_iterable(network.parameters() for network in self.networks())

    def backward(self, inputs: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Adds the method's gradient to `.grad`; weights and modes end as they were.

        Args:
            inputs: (batch, ...).
            targets: int64 (batch,), observed labels.
            indices: int64 (batch,), positions of the samples in the training set; for methods and losses that
                know something of single samples.

        Returns:
            The batch's mean loss at w, detached.
        """
        before = self.passes.sample_gradients
        loss = self.fill_gradients(inputs, targets, indices)
        self.gradient_count += (self.passes.sample_gradients - before) / len(targets)
        return loss

    def fill_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """What `backward` does, without the counting."""
        return self.passes.backward(inputs, targets, indices, moves_statistics=True)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly, beside model and optimizer."""
        return {"gradient_count": self.gradient_count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a `state_dict()` again."""
        self.gradient_count = state["gradient_count"]
