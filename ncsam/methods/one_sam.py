"""1-SAM: a perturbation for each sample by itself (Baek, Kolter, Raghunathan 2024, arXiv:2405.03676, section 2)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from ncsam.methods.as_given import as_given
from ncsam.methods.known_losses import ignored_label, is_known, is_sum
from ncsam.methods.loss_checks import check_that_it_is_a_mean, checked_loss
from ncsam.methods.requirements import Requirements
from ncsam.methods.sam import SAM
from ncsam.methods.state import State
from ncsam.methods.training_loss import LossFunction, remembers_samples
from ncsam.random_state import borrowed_generators

MOST_NUMBERS = 1 << 24
"""Numbers of the perturbed copies of the weights that are held at a time."""


class OneSAM(SAM):
    """The mean over the samples of the gradient of each one's loss at w + rho g_i / ||g_i||, g_i its own gradient.

    That is m-SAM with m = 1. SAM itself perturbs all samples of a batch alike. The samples of a piece of the batch pass
    at once, each with weights of its own, which needs the memory of as many copies of the model. BatchNorm mixes the
    samples, and is refused.

    Args:
        model: in training mode, without BatchNorm.
        loss_fn: (outputs, targets) -> mean loss, in which every sample counts alike.
        rho: radius of each perturbation in weight space, l2.
        warmup: share of the training with ordinary gradients.

    Raises:
        ValueError: the model has BatchNorm or sparse gradients, the loss remembers samples, weighs classes or is a
            sum, or rho is out of range.
    """

    requires = Requirements(classes=True, whole_weights=True)

    def __init__(self, model: nn.Module, loss_fn: LossFunction, *, rho: float, warmup: float = 0.0) -> None:
        super().__init__(model, loss_fn, rho=rho, warmup=warmup)
        self._is_mean = False
        if any(isinstance(module, _BatchNorm) for module in model.modules()):
            raise ValueError(
                "model: has BatchNorm, which mixes the samples that 1-SAM takes one by one; take another normalization"
            )
        if any(getattr(module, "sparse", False) is True for module in model.modules()):
            raise ValueError(
                "model: has an embedding with sparse gradients, which 1-SAM cannot map over; make it with sparse=False"
            )
        if remembers_samples(loss_fn):
            raise ValueError(
                f"loss_fn: {type(loss_fn).__name__} remembers samples, which 1-SAM cannot map over"
            )
        if isinstance(getattr(loss_fn, "weight", None), Tensor) or is_sum(loss_fn):
            raise ValueError(
                f"loss_fn: {type(loss_fn).__name__} weighs classes or is a sum, and 1-SAM takes the plain mean of the "
                "samples' losses; leave out weight= and reduction="
            )

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the mean of the samples' perturbed gradients to `.grad`."""
        if self.stays_at_w:
            return self.passes.backward(inputs, targets, indices, moves_statistics=True)
        passes = self.passes
        if passes.autocast_dtype is not None or passes.micro_batch_size is not None:
            raise ValueError("passes: 1-SAM computes in the model's precision and cuts batches by itself")
        ignored = ignored_label(self.loss_fn)
        if ignored is not None and (targets == ignored).any():
            raise ValueError(
                f"targets: has the label {ignored} that the loss ignores, and 1-SAM takes the mean over all samples; "
                "leave these samples out"
            )
        if not self._is_mean:
            self._check_that_it_is_a_mean(inputs, targets)
        # an ordinary pass over one sample finds the weights that the loss reaches
        passes.find_reached(inputs[:1], targets[:1])
        weights = {
            name: weight.detach() for name, weight in passes.module.named_parameters() if weight.requires_grad
        }
        size = max(1, MOST_NUMBERS // sum(weight.numel() for weight in weights.values()))
        with passes.unmoved() as before:
            pieces = [
                self._summed(weights, *piece)
                for piece in zip(inputs.split(size), targets.split(size), strict=True)
            ]
            self._check_that_no_state_moved(before, inputs[:1], targets[:1])
        passes.sample_gradients += 2 * len(targets)
        total = [torch.stack(parts).sum(0) / len(targets) for parts in zip(*pieces, strict=True)]
        loss, *mean = total
        if passes.averages:
            torch._foreach_mul_(mean, passes.rank_factor(inputs, targets))
            passes.average(mean)
        passes.accumulate(mean)
        return loss

    @torch.no_grad()
    def _check_that_it_is_a_mean(self, inputs: Tensor, targets: Tensor) -> None:
        """Checks once that the loss of a batch is the mean of the samples' losses, for losses that are not torch's."""
        if not is_known(self.loss_fn):
            # the caller's random numbers are those of the step
            with borrowed_generators(inputs.device), self.passes.unmoved():
                outputs = self.passes.forward(self.passes.module, inputs)
            if isinstance(outputs, Tensor):
                check_that_it_is_a_mean(self.loss_fn, outputs, targets, [1] * len(targets))
        self._is_mean = True

    @torch.no_grad()
    def _check_that_no_state_moved(self, before: State | None, inputs: Tensor, targets: Tensor) -> None:
        """Raises ValueError if passes move state, rather than write down what depends on their sample alone.

        Args:
            before: the state before the passes.
            inputs, targets: one sample. Where the state is another, two ordinary passes of it must agree.
        """
        if before is None or before.change() is None:
            return
        before.restore()
        first = self._loss_of_one(inputs, targets)
        with self.passes.unmoved() as settled:
            again = self._loss_of_one(inputs, targets)
            changed = settled.change() if settled is not None else None
        if changed is None and not torch.allclose(first, again, rtol=1e-5, atol=0, equal_nan=True):
            changed = "an attribute"
        if changed is not None:
            raise ValueError(
                f"model: {changed} of the model or the loss changes in a pass, and 1-SAM takes the samples apart, so "
                "that state has no single new value; take SAM, or change it after optimizer.step()"
            )

    def _loss_of_one(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of a sample in an ordinary pass, always with the same random numbers."""
        with borrowed_generators(inputs.device):
            return checked_loss(self.loss_fn, self.passes.forward(self.passes.module, inputs), targets)

    def _summed(self, weights: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> list[Tensor]:
        """The sum of the losses at w, and the sums of the perturbed gradients, of a piece of the batch."""
        module, loss_fn = self.passes.module, self.loss_fn

        def loss_of_one(own: dict[str, Tensor], sample: Tensor, target: Tensor) -> Tensor:
            outputs: Any = functional_call(module, own, (sample.unsqueeze(0),))
            return loss_fn(outputs, target.unsqueeze(0))  # type: ignore[call-arg]

        each = grad_and_value(loss_of_one)
        try:
            of_all = vmap(each, in_dims=(None, 0, 0), randomness="different")
            at_w, losses = of_all(weights, as_given(inputs), as_given(targets))
        except RuntimeError as error:
            if "memory" in str(error) and "vmap" not in str(error):
                raise
            raise ValueError(
                f"model: 1-SAM maps over the samples (torch.func.vmap), and the model or the loss cannot be mapped, as "
                f"one that writes to its buffers or reads numbers of its outputs cannot; take SAM: {error}"
            ) from error
        lengths = _lengths(list(at_w.values()))
        factors = torch.where(lengths == 0, torch.zeros_like(lengths), self.rho / lengths)
        moved = {
            name: weights[name] + part * factors.view(-1, *[1] * (part.ndim - 1))
            for name, part in at_w.items()
        }
        sharp, _ = vmap(each, randomness="different")(moved, as_given(inputs), as_given(targets))
        return [losses.detach().sum(), *(part.sum(0) for part in sharp.values())]


def _lengths(parts: list[Tensor]) -> Tensor:
    """The norm of each sample's gradient, (batch,), of its parts (batch, ...). No square is 0 or infinite."""
    squares = [part.double().square().reshape(len(part), math.prod(part.shape[1:])).sum(1) for part in parts]
    return torch.stack(squares).sum(0).sqrt().to(torch.promote_types(torch.float32, parts[0].dtype))
