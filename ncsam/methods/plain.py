"""No perturbation: the ordinary gradient, in the same form as the sharpness-aware methods."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ncsam.methods.perturbation import LossFunction


class Plain:
    """`method.backward(inputs, targets)` is `loss_fn(model(inputs), targets).backward()`.

    Attributes:
        progress: share of the training that is done, 0 to 1; not used here.
        gradient_count: gradients spent so far, in gradients of a batch.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self.progress: float | None = None
        self.gradient_count = 0.0

    def backward(self, inputs: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Adds the gradient of the batch's mean loss to `.grad` and returns that loss, detached."""
        loss = self.loss_fn(self.model(inputs), targets)
        loss.backward()
        self.gradient_count += 1
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly."""
        return {"gradient_count": self.gradient_count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a `state_dict()` again."""
        self.gradient_count = state["gradient_count"]
