"""NCSAM: Noise-Compensated SAM, Algorithm 1 of arXiv:2601.19947 (equation numbers are those of its v3)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ncsam.methods.perturbation import (
    Ascent,
    Compensation,
    LossFunction,
    backward_at,
    gradient,
    projected_onto_ball,
    scaled_to,
)
from ncsam.methods.plain import Plain
from ncsam.methods.sam import SAM


def confidence_gaps(logits: Tensor) -> Tensor:
    """Eq. 16: the largest logit less the second largest. (batch, classes) -> (batch,)."""
    top = logits.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def draw_probabilities(gaps: Tensor) -> Tensor:
    """Eq. 17: q_i = 1 / (1 + gap_i), normalised over the batch. (batch,) -> (batch,)."""
    weights = 1 / (1 + gaps)
    return weights / weights.sum()


def draw_without_replacement(probabilities: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` different positions, drawn one after another with the given probabilities.

    The largest log p_i + Gumbel noise: the same law as drawing one by one without replacement, with no
    synchronisation, and without a failure when the probabilities are NaN.
    """
    noise = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities.log() - noise.log()).topk(count).indices


def temporary_labels(logits: Tensor, observed: Tensor) -> Tensor:
    """Eq. 18: the class of the largest logit other than the observed label's. -> int64 (batch,)."""
    return logits.scatter(1, observed.unsqueeze(1), float("-inf")).argmax(1)


def progressive_scale(progress: float) -> float:
    """Eq. 15 without kappa: min(1, r(t)), r(t) = 2 (3 - 2 t) t^2, t the share of training done."""
    return min(1.0, 2 * (3 - 2 * progress) * progress**2)


class NCSAM(SAM):
    """SAM whose perturbation is shifted along a simulated label-noise gradient and projected on the rho-ball.

    A share `flip_ratio` of each batch, low-margin samples first, is given temporary labels; with g* the
    gradient of those samples' loss, the perturbation is Proj(rho g / ||g|| + s(t) g*) (Eq. 12, 13). In the
    warm-up the gradient is the ordinary one.

    Set `method.progress = epoch / epochs` (epochs counted from 1) at the start of each epoch; `fit()` does.

    Args:
        model: in training mode, with outputs (batch, classes).
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2.
        flip_ratio: share of the batch that is drawn, rounded down to whole samples; 0 to 1.
        strength: kappa, in weight units per gradient unit; at least 0.
        compensation: +1, the paper's sign; -1, the ablation that moves against g*.
        warmup: share of training with plain gradients; the paper has 50 of 200 epochs.
        seed: of the draw.
        simulated_noise_loss: loss of g* if not `loss_fn`; the authors' later code smooths labels by 0.1 there.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        *,
        rho: float,
        flip_ratio: float,
        strength: float,
        compensation: int = 1,
        warmup: float = 0.25,
        seed: int = 0,
        simulated_noise_loss: LossFunction | None = None,
    ) -> None:
        super().__init__(model, loss_fn, rho=rho)
        if not 0 <= flip_ratio <= 1:
            raise ValueError(f"flip_ratio: the drawn share of a batch must lie in [0, 1], got {flip_ratio}")
        if not 0 <= strength < float("inf"):
            raise ValueError(f"strength: kappa must be at least 0 and finite, got {strength}")
        if compensation not in (1, -1):
            raise ValueError(f"compensation: the sign must be +1 or -1, got {compensation}")
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup: the share of training must lie in [0, 1], got {warmup}")
        self.flip_ratio = flip_ratio
        self.strength = strength
        self.compensation = compensation
        self.warmup = warmup
        self.simulated_noise_loss = simulated_noise_loss or loss_fn
        device = next(model.parameters()).device
        self.generator = torch.Generator(device).manual_seed(seed)

    def scale(self) -> float:
        """s(t) of Eq. 15, with the compensation's sign."""
        if self.progress is None:
            raise ValueError(
                "progress: NCSAM's schedule needs it; set method.progress = epoch / epochs at each epoch's start"
            )
        return self.compensation * self.strength * progressive_scale(self.progress)

    def ascend(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Ascent:  # noqa: ARG002
        """Steps 1 to 6 of Algorithm 1; one forward pass serves both gradients at w."""
        scale = self.scale()
        logits = self.model(inputs)
        loss = self.loss_fn(logits, targets)

        # the guard keeps a ratio such as 0.29 of 100 from rounding to 28.999...
        count = math.floor(self.flip_ratio * len(targets) + 1e-9)
        at_w = gradient(loss, self.model, retain_graph=count > 0)
        to_rho = scaled_to(at_w, self.rho)
        if count == 0:
            return Ascent(loss.detach(), at_w, to_rho)

        fixed_logits = logits.detach()
        probabilities = draw_probabilities(confidence_gaps(fixed_logits))
        drawn = draw_without_replacement(probabilities, count, self.generator)
        labels = temporary_labels(fixed_logits[drawn], targets[drawn])
        simulated = gradient(self.simulated_noise_loss(logits[drawn], labels), self.model)

        shifted = [sam + scale * g_star for sam, g_star in zip(to_rho, simulated, strict=True)]
        perturbation, projected = projected_onto_ball(shifted, self.rho)
        return Ascent(
            loss.detach(), at_w, perturbation, Compensation(drawn, labels, simulated, scale, projected)
        )

    def backward(self, inputs: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Adds the gradient at the perturbed weights (in the warm-up: at w) to `.grad`; returns the loss at w.

        Raises:
            ValueError: `progress` was never set.
        """
        self.scale()
        if self.progress is not None and self.progress <= self.warmup:
            self.ascent = None
            return Plain.backward(self, inputs, targets, indices)
        self.ascent = self.ascend(inputs, targets, indices)
        backward_at(self.model, self.loss_fn, self.ascent.perturbation, inputs, targets)
        drawn = self.ascent.compensation.drawn if self.ascent.compensation else ()
        self.gradient_count += 2 + len(drawn) / len(targets)
        return self.ascent.loss

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly: the draw's random state too."""
        return {**super().state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a `state_dict()` again."""
        super().load_state_dict(state)
        self.generator.set_state(state["generator"].cpu())
