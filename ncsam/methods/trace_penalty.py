"""SGD with a penalty on flatness itself: the trace of the Fisher matrix, or of the outputs' Jacobian, J^T J.

SAM flattens by where it takes the gradient, and label noise by what is drawn. These methods descend on
loss + strength * trace, so that flatness is what is set and everything else stays. (The Fisher penalty holds the labels
that it draws fixed, as its source does, and so leaves a term of the trace's gradient out.)

Let J_i be the Jacobian of sample i's outputs in the weights, and v_i random with mean 0 and covariance C_i, independent
over the B samples of a batch. The squared norm of the batch's mean of J_i^T v_i, times B, has the mean over the
samples of tr(J_i^T C_i J_i) as its expectation. The penalties differ in v.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ncsam.methods.gradients import gradients_by_grad, with_a_gradient
from ncsam.methods.graph_nodes import check_that_no_checkpoint_is_reentrant
from ncsam.methods.method import Method
from ncsam.methods.outputs import one_tensor
from ncsam.methods.perturbation import trainable_parameters
from ncsam.methods.requirements import Requirements
from ncsam.methods.sam_by_part import mean_inner_product
from ncsam.methods.training_loss import LossFunction
from ncsam.methods.twice_differentiable import refusing_what_has_no_second_derivative, twice_differentiable
from ncsam.options import check_at_least, check_not_negative
from ncsam.random_state import generator_from

COST_OF_DOUBLE_BACKWARD = 2
"""The penalty's two further backward passes, in gradients: one in the outputs, and one through it."""


class TracePenalty(Method):
    """The gradient of the batch's mean loss plus `strength` times an estimate of a trace.

    The trace needs no labels, and is that of all samples, also of those whose label the loss ignores.

    Args:
        model: in training mode. It returns one tensor, and can be differentiated twice.
        loss_fn: (outputs, targets) -> mean loss.
        seed: of the draws. Each step has a draw of its own.
        strength: weight of the trace in the loss; 0 is `Plain`.
        warmup: share of the training with ordinary gradients.

    Raises:
        ValueError: the model is compiled, the strength is negative or not finite, or the warm-up is no share.
    """

    requires = Requirements(one_process=True, second_derivatives=True)

    def __init__(
        self, model: nn.Module, loss_fn: LossFunction, *, seed: int, strength: float, warmup: float = 0.0
    ) -> None:
        super().__init__(model, loss_fn, warmup=warmup)
        if hasattr(model, "_orig_mod"):
            raise ValueError(
                f"model: is compiled, and {type(self).__name__} differentiates it twice, which torch.compile cannot "
                "do; give the module itself"
            )
        check_not_negative("strength", strength)
        check_at_least("seed", seed, 0)
        self.seed = seed
        self.strength = strength
        self.steps = 0

    @abstractmethod
    def drawn_mean(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """A scalar whose gradient in the weights is the mean over the samples of J^T v, with v drawn.

        Args:
            outputs: (batch, ...), with their graph.
            generator: on the CPU.
        """

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient of loss and penalty to `.grad`."""
        self.check_whole_batch("takes the squared norm of a whole batch's gradient")
        with twice_differentiable():
            outputs = self.passes.outputs(self.passes.model, inputs, indices, first=True)
        outputs = one_tensor(outputs, type(self).__name__)
        loss = self.passes.loss(outputs, targets, indices)
        with refusing_what_has_no_second_derivative(type(self).__name__):
            penalty = self.strength * self.estimated_trace(outputs)
            self.steps += 1
            self.passes.sample_gradients += COST_OF_DOUBLE_BACKWARD * len(outputs)
            self.passes.backward_of(loss + penalty)
        return loss.detach()

    def estimated_trace(self, outputs: Tensor) -> Tensor:
        """An estimate of the trace at the current weights, with its graph; its draw is that of the next step."""
        mean = self.drawn_mean(outputs, generator_from(self.seed, self.steps))
        parameters = trainable_parameters(self.passes.module)
        if not parameters:
            raise ValueError("model: none of its parameters requires a gradient")
        check_that_no_checkpoint_is_reentrant(with_a_gradient(mean), self.passes.module)
        found = gradients_by_grad(mean, parameters, create_graph=True)
        norm = torch.stack([part.square().sum() for part in found if part is not None]).sum()
        return len(outputs) * norm

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume, with the number of steps, which fixes the draws."""
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        super().load_state_dict(state)
        self.steps = state["steps"]


class FisherPenalty(TracePenalty):
    """Penalizes the trace of the Fisher matrix (Jastrzebski et al. 2021, arXiv:2012.14193, section 4).

    v = p - onehot(y'), with the predicted probabilities p and a label y' that is drawn from them. For the cross-entropy
    the Fisher matrix is the Gauss-Newton matrix. As in the paper, the gradient does not go through the draw of y'. The
    paper's penalty is the squared norm itself: its coefficient is `strength` times the batch size. The paper takes it
    every tenth step and on fewer samples; here each step has it, on the whole batch.

    Args: as for `TracePenalty`; the outputs are logits (batch, classes).
    """

    def drawn_mean(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """The mean cross-entropy of the drawn labels."""
        if outputs.ndim != 2:
            raise ValueError(
                f"model: must return logits (batch, classes) for FisherPenalty, got {tuple(outputs.shape)}"
            )
        shares = outputs.detach().float().softmax(1).cumsum(1)
        # drawn on the CPU, so that every device has the same draws
        level = torch.rand(len(outputs), 1, generator=generator, device="cpu").to(outputs.device)
        drawn = (shares < level).sum(1).clamp(max=outputs.shape[1] - 1)
        return cross_entropy(outputs, drawn)


class JacobianPenalty(TracePenalty):
    """Penalizes tr J^T J, the mean over the samples of the squared norm of the outputs' Jacobian in the weights.

    v is +1 or -1 in each output. The trace does not know how sure the predictions are, and tr F does: F is the same
    matrix weighted by the predictions' uncertainty.

    Args: as for `TracePenalty`.
    """

    def drawn_mean(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """The mean over the samples of the outputs' inner product with random signs."""
        signs = 2.0 * torch.randint(0, 2, outputs.shape, generator=generator, device="cpu") - 1
        return mean_inner_product(outputs, signs.to(outputs))
