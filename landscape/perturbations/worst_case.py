"""How much the loss rises at worst near the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.loss.objective import Objective
from landscape.perturbations.relative_scale import scale_of
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result

KINDS = ("worst",)
NORMS = ("l2", "linf")


@result
class Sharpness:
    """The largest rise of the loss that was found near the weights: a lower bound of the largest there is."""

    value: float = described("largest rise of the mean loss found: a lower bound", unit="nat")
    one_step: float = described(
        "rise after one step of the gradient to the border, as SAM and ASAM take it", unit="nat"
    )
    center_loss: float = described("mean loss of the model itself", unit="nat")
    rho: float = described("radius of the neighbourhood")
    kind: str = described("which sharpness")
    steps: int = described("ascent steps from each start")
    restarts: int = described("random starts beside the gradient's")
    gradients: int = described("gradients spent", unit="gradients")
    samples: int = described("samples in the mean loss")
    norm: str = described("l2: a ball; linf: a box", default="l2")
    adaptive: str = described("what the radius is relative to", default="none")
    starts: FloatArray | None = described(
        "largest rise found from each start, the gradient's first", unit="nat", dims=("start",), default=None
    )


def sharpness(
    objective: Objective,
    *,
    kind: str = "worst",
    rho: float = 0.05,
    norm: str = "l2",
    adaptive: str = "none",
    steps: int = 10,
    restarts: int = 1,
    seed: int = 0,
) -> Sharpness:
    """Worst-case sharpness max L(theta + T u) - L(theta) over ||u|| <= rho, by projected gradient ascent.

    From the point that one step of the gradient reaches (SAM's rho g / ||g|| in the plain ball) and from random
    points of the border, each step goes along the gradient, or its sign in the box, and back into the
    neighbourhood, with a length that falls from rho to rho / steps. The largest rise at any point visited is a
    lower bound of the maximum; how far the starts agree is a hint of how good it is.

    Sources: Keskar et al. 2017 (box), Foret et al. 2021 (ball, one step), Kwon et al. 2021 (adaptive),
    Andriushchenko et al. 2023 (all of them, by ascent). Cost: 1 + (1 + restarts) steps gradients, and an
    evaluation a start.

    Args:
        objective: whose loss, in evaluation mode.
        kind: `"worst"`; the average case is `average_sharpness`.
        rho: radius, in the units of the weights times what `adaptive` says.
        norm: `"l2"`, a ball, or `"linf"`, a box.
        adaptive: what the radius is relative to: `"none"` (T = 1), `"elementwise"` (T = |theta|) or `"filter"` (T =
            norm of each weight's filter or row, |theta| of one-dimensional parameters).
        steps: gradient steps from each start.
        restarts: random starts beside the gradient's.
        seed: of the random starts.

    Raises:
        ValueError: an argument out of range.
    """
    if kind not in KINDS:
        raise ValueError(
            f"kind: must be one of {', '.join(KINDS)}, got {kind!r}; the average case is average_sharpness"
        )
    check_ascent(rho, norm, steps, restarts)
    spent = objective.gradients
    scale = scale_of(objective, adaptive)
    center, gradient = objective.value_and_gradient()
    one_step, starts = worst_rises(
        objective,
        center,
        gradient,
        scale=scale,
        rho=rho,
        norm=norm,
        steps=steps,
        restarts=restarts,
        seed=seed,
    )
    return Sharpness(
        value=float(torch.clamp(starts.max(), min=0)),
        one_step=float(one_step),
        center_loss=float(center),
        rho=rho,
        kind=kind,
        steps=steps,
        restarts=restarts,
        gradients=objective.gradients - spent,
        samples=objective.n_samples,
        norm=norm,
        adaptive=adaptive,
        starts=starts.cpu().numpy(),
    )


def check_ascent(rho: float, norm: str, steps: int, restarts: int) -> None:
    """Checks the arguments of an ascent.

    Raises:
        ValueError: one out of range.
    """
    if not 0 < rho < float("inf"):
        raise ValueError(f"rho: must be positive and finite, got {rho}")
    if norm not in NORMS:
        raise ValueError(f"norm: must be one of {', '.join(NORMS)}, got {norm!r}")
    if steps < 1:
        raise ValueError(f"steps: must be at least 1, got {steps}")
    if restarts < 0:
        raise ValueError(f"restarts: must be at least 0, got {restarts}")


def worst_rises(
    objective: Objective,
    center: Tensor,
    gradient: Tensor,
    *,
    scale: Tensor | float,
    rho: float,
    norm: str,
    steps: int,
    restarts: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """The rise after one step of the gradient, and the largest found from each start, on the device.

    Args:
        objective: whose loss.
        center: the loss at its weights.
        gradient: the gradient there.
        scale: T, of which the neighbourhood's points are multiples.
        rho, norm, steps, restarts, seed: as for `sharpness`.
    """
    generator = torch.Generator(objective.device).manual_seed(seed)
    starts = [_to_border(scale * gradient, rho, norm)]
    for _ in range(restarts):
        draw = torch.randn(
            objective.n_parameters, dtype=objective.dtype, device=objective.device, generator=generator
        )
        starts.append(_to_border(draw, rho, norm))
    found = []
    one_step = torch.zeros_like(center)
    for index, offset in enumerate(starts):
        losses = []
        for step in range(steps):
            loss, ascent = objective.value_and_gradient(objective.theta + scale * offset)
            losses.append(loss)
            length = rho * (steps - step) / steps
            offset = _into(offset + _to_border(scale * ascent, length, norm), rho, norm)
        last = objective.value(objective.theta + scale * offset)
        losses.append(torch.full_like(center, last))
        if index == 0:
            one_step = losses[0] - center
        # NaN is the largest, so that it is reported and not passed over
        found.append(torch.stack(losses).max() - center)
    return one_step, torch.stack(found)


def _to_border(direction: Tensor, rho: float, norm: str) -> Tensor:
    """The point of the border where a linear function with this gradient is largest."""
    if norm == "linf":
        return direction.sign() * rho
    total = torch.linalg.vector_norm(direction)
    return direction * torch.where(total == 0, torch.zeros_like(total), rho / total)


def _into(point: Tensor, rho: float, norm: str) -> Tensor:
    """The nearest point of the neighbourhood."""
    if norm == "linf":
        return point.clamp(-rho, rho)
    total = torch.linalg.vector_norm(point)
    return point * torch.where(total > rho, rho / total, torch.ones_like(total))
