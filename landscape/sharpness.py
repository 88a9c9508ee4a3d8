"""How much the loss rises near the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.objective import Objective
from landscape.results import described

KINDS = ("worst",)


@dataclass(frozen=True)
class Sharpness:
    """The largest rise of the loss that was found in a ball around the weights: a lower bound of the largest."""

    value: float = described("largest rise of the mean loss found in the ball: a lower bound", unit="nat")
    one_step: float = described("rise at rho g / ||g||, SAM's one-step estimate", unit="nat")
    center_loss: float = described("mean loss of the model itself", unit="nat")
    rho: float = described("radius of the ball in weight space, l2")
    kind: str = described("which sharpness")
    steps: int = described("ascent steps from each start")
    restarts: int = described("random starts beside the gradient's")
    gradients: int = described("gradients spent", unit="gradients")
    samples: int = described("samples in the mean loss")


def sharpness(
    objective: Objective,
    *,
    kind: str = "worst",
    rho: float = 0.05,
    steps: int = 10,
    restarts: int = 1,
    seed: int = 0,
) -> Sharpness:
    """Worst-case sharpness max_{||e|| <= rho} L(theta + e) - L(theta) by projected gradient ascent.

    From SAM's point rho g / ||g|| and from random points of the sphere, each step moves to
    Proj(e + step g(theta + e) / ||g(theta + e)||) with a step that falls from rho to rho / steps. The largest
    rise at any point visited is a lower bound of the maximum (definition: Foret et al. 2021, Keskar et al.
    2017).

    Args:
        objective: whose loss, in evaluation mode.
        kind: `"worst"`.
        rho: radius of the ball in weight space, l2.
        steps: gradient steps from each start.
        restarts: random starts beside SAM's point.
        seed: of the random starts.

    Raises:
        ValueError: an argument out of range.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: must be one of {', '.join(KINDS)}, got {kind!r}")
    if not 0 < rho < float("inf"):
        raise ValueError(f"rho: must be positive and finite, got {rho}")
    if steps < 1:
        raise ValueError(f"steps: must be at least 1, got {steps}")
    if restarts < 0:
        raise ValueError(f"restarts: must be at least 0, got {restarts}")
    spent = objective.gradients
    generator = torch.Generator(objective.device).manual_seed(seed)
    center = objective.value()
    one_step = _of_length(objective.gradient(), rho)
    starts = [one_step]
    for _ in range(restarts):
        draw = torch.randn(
            objective.n_parameters, dtype=objective.dtype, device=objective.device, generator=generator
        )
        starts.append(_of_length(draw, rho))

    at_one_step = objective.value(objective.theta + one_step)
    best = max([center, at_one_step], key=_with_nan_first)
    for offset in starts:
        for step in range(steps):
            ascent = objective.gradient(objective.theta + offset)
            offset = _into_ball(offset + _of_length(ascent, rho * (steps - step) / steps), rho)
            best = max([best, objective.value(objective.theta + offset)], key=_with_nan_first)
    return Sharpness(
        value=best - center,
        one_step=at_one_step - center,
        center_loss=center,
        rho=rho,
        kind=kind,
        steps=steps,
        restarts=restarts,
        gradients=objective.gradients - spent,
        samples=objective.n_samples,
    )


def _with_nan_first(loss: float) -> float:
    """A loss that is not a number counts as the largest, so that it is reported and not passed over."""
    return float("inf") if loss != loss else loss


def _of_length(vector: Tensor, length: float) -> Tensor:
    total = torch.linalg.vector_norm(vector)
    return vector * torch.where(total == 0, torch.zeros_like(total), length / total)


def _into_ball(vector: Tensor, radius: float) -> Tensor:
    total = torch.linalg.vector_norm(vector)
    return vector * torch.where(total > radius, radius / total, torch.ones_like(total))
