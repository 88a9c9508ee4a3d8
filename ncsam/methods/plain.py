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
        gradient_count: gradients spent so far, in gradients of a batch.

    Raises:
        TypeError: no module, such as its parameters, or no loss.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction | RememberingLoss) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model: must be a torch.nn.Module, got {type(model).__name__}; a method takes the model and the loss, "
                "the parameters are your optimizer's"
            )
        if not callable(loss_fn):
            raise TypeError(
                f"loss_fn: must be called with (outputs, targets), got {type(loss_fn).__name__}; "
                "build_loss makes one by name"
            )
        self.passes = Passes(model, loss_fn)
        self._share_done: float | None = None
        self.gradient_count = 0.0

    @property
    def progress(self) -> float | None:
        """Share of the training that is done, 0 to 1: set it to epoch / epochs, as `fit()` does; None before.

        Raises:
            ValueError: set to another number, such as that of the epoch.
        """
        return self._share_done

    @progress.setter
    def progress(self, share: float | None) -> None:
        # beyond 1 a schedule means nothing: NCSAM's would turn its sign
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"progress: must be a share in [0, 1], such as epoch / epochs, got {share}")
        self._share_done = share

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
