"""RegCE: cross-entropy with common regularization (Kang et al. 2023, arXiv:2307.05025)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ncsam.methods.method import Method
from ncsam.methods.requirements import Requirements
from ncsam.methods.training_loss import TrainingLoss
from ncsam.methods.weight_average import WeightAverage
from ncsam.options import check_below_1


class RegCE(Method):
    """The ordinary gradient; predictions are those of a moving average of the weights.

    The recipe has three parts: a learning rate that falls, the average of the weights, and augmentation. The average is
    this method; the other two are settings of the training (`schedule="step"`; `crop`, `flip`, `cutout`). In a loop of
    your own, call `after_step()` after each step of the optimizer.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        decay: of the average, in a step; 0.999 is common, and the paper may take another.

    Attributes:
        average: the average of the weights and buffers, whose network predicts.
    """

    requires = Requirements(whole_weights=True)

    def __init__(self, model: nn.Module, loss_fn: TrainingLoss, *, decay: float = 0.999) -> None:
        super().__init__(model, loss_fn)
        check_below_1("decay", decay)
        self.decay = decay
        self.steps = 0
        self.average = WeightAverage(self.passes.module, moves_buffers=True)

    def predictors(self) -> list[nn.Module]:
        """The averaged network."""
        return [self.average.network]

    def after_step(self) -> None:
        """Moves the average; early it is the plain mean of the weights so far, so that it forgets the first ones."""
        self.steps += 1
        self.average.follow(self.passes.module, min(self.decay, 1 - 1 / self.steps))

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """The ordinary gradient."""
        return self.passes.backward(inputs, targets, indices, moves_statistics=True)

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume, the averaged network included."""
        return {**super().state_dict(), "steps": self.steps, "average": self.average.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        super().load_state_dict(state)
        self.steps = state["steps"]
        self.average.network.load_state_dict(state["average"])
