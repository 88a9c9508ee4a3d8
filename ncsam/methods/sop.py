"""SOP: sparse over-parameterization of the label noise (Liu et al. 2022, arXiv:2202.14026)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot, softmax

from ncsam.counted_mean import mean_over
from ncsam.methods.gradients import with_a_gradient
from ncsam.methods.known_losses import has_label, ignored_or_default
from ncsam.methods.method import Method
from ncsam.methods.plain_loss import check_plain_cross_entropy
from ncsam.methods.requirements import Requirements
from ncsam.methods.training_loss import LossFunction
from ncsam.options import check_at_least, check_not_negative

SMALLEST = 1e-4
"""Probabilities are at least that large in the loss."""


class SOP(Method):
    """Cross-entropy of the prediction plus a noise term of each sample, which is learned.

    The noise of a sample with the one-hot label y is s = u^2 y - v^2 (1 - y), with a number u and a vector v of the
    sample's own. Weights and u descend on the cross-entropy of (p + s) / |p + s|, clamped from below. v descends on the
    squared distance between y and the sum of s and the one-hot vector of the predicted class. All start near 0, so that
    s stays sparse. Source: the paper's algorithm; losses, clamps and first values are those of the authors' code.

    u and v move with rates of their own, without momentum and weight decay. The regularizers of SOP+ (consistency of
    two augmentations, balance of classes) are not part of the method. Samples whose label the loss ignores do not
    count, and their u and v stay.

    Args:
        model: in training mode, with outputs (batch, classes).
        loss_fn: plain cross-entropy; the method makes its own loss of the outputs.
        samples: size of the training set.
        seed: of the first u and v.
        rate_u: learning rate of u; 10 is what reimplementations have for CIFAR-10 (1 for CIFAR-100).
        rate_v: learning rate of v; 10.
        scale: standard deviation of the first u and v; 1e-8 in the authors' code.
        warmup: share of the training with ordinary gradients.

    Attributes:
        noise_u: (n, 1); None before the first step.
        noise_v: (n, classes).

    Raises:
        ValueError: the loss is not plain cross-entropy, or a rate, the scale or the warm-up is out of range.
    """

    requires = Requirements(classes=True, one_process=True)
    takes_ignored_labels = True

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        *,
        samples: int,
        seed: int,
        rate_u: float = 10.0,
        rate_v: float = 10.0,
        scale: float = 1e-8,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(model, loss_fn, warmup=warmup)
        check_plain_cross_entropy(loss_fn, "SOP")
        for name, value in (("rate_u", rate_u), ("rate_v", rate_v), ("scale", scale)):
            check_not_negative(name, value)
        check_at_least("samples", samples, 1)
        self.samples = samples
        self.seed = seed
        self.rate_u = rate_u
        self.rate_v = rate_v
        self.scale = scale
        self.noise_u: Tensor | None = None
        self.noise_v: Tensor | None = None

    def known_samples(self) -> int | None:
        """The size of the training set."""
        return self.samples

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient of the weights to `.grad`, and moves u and v of the batch."""
        indices = self.known_positions(indices, "learns the noise of single samples")
        self.check_whole_batch("takes a batch whole")
        outputs = self.passes.outputs(self.passes.model, inputs, indices, first=True)
        noise_u, noise_v = self._noise(outputs)
        u, v = noise_u[indices].requires_grad_(), noise_v[indices].requires_grad_()
        counts = has_label(self.loss_fn, targets)
        labels = targets.where(counts, 0)
        of_noise, squares = sop_losses(outputs.detach(), labels, u, v, counts)
        moved = torch.autograd.grad(with_a_gradient(of_noise + squares), [u, v])
        loss, _ = sop_losses(outputs, labels, u.detach(), v.detach(), counts)
        self.passes.backward_of(loss)
        # a scaler skips the step of a pass that overflowed; the noise must not move either
        if outputs.isfinite().all():
            # added, because the gradients of a sample that the batch holds twice add up
            places = indices.to(noise_u.device)
            noise_u.index_add_(0, places, -self.rate_u * moved[0])
            noise_v.index_add_(0, places, -self.rate_v * moved[1])
        return nn.functional.cross_entropy(
            outputs.detach(), targets, ignore_index=ignored_or_default(self.loss_fn)
        )

    def _noise(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        if self.noise_u is None or self.noise_v is None:
            generator = torch.Generator().manual_seed(self.seed)
            drawn = self.scale * torch.randn(
                self.samples, 1 + outputs.shape[1], generator=generator, device="cpu"
            )
            drawn = drawn.to(outputs.device, outputs.dtype)
            self.noise_u, self.noise_v = drawn[:, :1].clone(), drawn[:, 1:].clone()
        return self.noise_u, self.noise_v

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume, the noise of each sample included."""
        return {**super().state_dict(), "noise_u": self.noise_u, "noise_v": self.noise_v}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        super().load_state_dict(state)
        self.noise_u, self.noise_v = state["noise_u"], state["noise_v"]


def sop_losses(
    outputs: Tensor, targets: Tensor, u: Tensor, v: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy, on which weights and u descend, and the mean squared distance, on which v does.

    Args:
        outputs: (batch, classes), logits.
        targets: int64 (batch,).
        u: (batch, 1).
        v: (batch, classes).
        counts: (batch,), whether a sample enters the means.
    """
    labels = one_hot(targets, outputs.shape[1]).to(outputs)
    added = (u**2 * labels).clamp(0, 1)
    taken = (v**2 * (1 - labels)).clamp(0, 1)
    mixed = (softmax(outputs, 1) + added - taken.detach()).clamp(min=SMALLEST)
    predicted = normalize(mixed, p=1.0, dim=1).clamp(SMALLEST, 1.0)
    entropy = mean_over(-(labels * predicted.log()).sum(1), counts)
    hard = one_hot(outputs.argmax(1), outputs.shape[1]).to(outputs)
    squares = mean_over((hard + added.detach() - taken - labels).square().sum(1), counts)
    return entropy, squares
