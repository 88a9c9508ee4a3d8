"""Whether a model's gradient is that of its loss: one derivative is compared with a difference of losses."""

from __future__ import annotations

import torch

from landscape.loss.derivatives import derivative
from landscape.loss.in_float64 import InFloat64

STEP = 1e-7
"""Relative to the weights. So short a step, which only float64 allows, hardly ever crosses the kink of a ReLU."""

ALLOWED = 1e-3
"""Relative difference. Right gradients differ by 1e-6; wrong ones by some percent or more."""

SPREAD = 10
"""The difference over one step and that over half of it tell the error of both. The gradient may differ by so many."""

ROUNDING = 100
"""Units in the last place of the loss, by which two losses may differ."""


def check_first_derivatives(few: InFloat64) -> None:
    """Compares the gradient of a few samples' loss along a direction with differences of the loss.

    A model that does not run in float64, or rounds to a shorter dtype inside, is not compared. Nor is a point where the
    differences do not settle.

    Raises:
        ValueError: they differ, at two points and in two directions.
    """
    errors = []
    for seed in range(2):
        try:
            if few.loses_precision:
                return
            error = _error(few, seed)
        except Exception:
            # the model or the loss has a dtype of its own inside
            return
        if error is None:
            return
        errors.append(error)
    raise ValueError(
        f"model: its gradient is not that of its loss: along a direction they differ by {max(errors):.2g} of it; a "
        "straight-through estimator, a reversed or scaled gradient, a hook that changes gradients, a detach() or "
        "no_grad() of what depends on the weights, a reentrant checkpoint, or a write to weights within forward gives "
        "such gradients; freeze weights that are cut off (requires_grad_(False)), give checkpoints "
        "use_reentrant=False; "
        "losses and surfaces can be had"
    )


@torch.enable_grad()
def _error(few: InFloat64, seed: int) -> float | None:
    """The relative difference at a point near theta; None if it is within what the differences are good for."""
    point, vector = few.draws(seed)
    slope = few.run(point, lambda variable, outputs: derivative(few.loss(outputs), variable))
    # the padding row of an embedding is a constant to torch, and yet moves the loss; a parameter that is one as a whole
    # was cut off
    parts = slope.split(few.layout.sizes)
    vector = vector * torch.cat([(part != 0) | ~part.any() for part in parts])

    def rise(step: float) -> tuple[float, float]:
        ahead, behind = (
            few.run(point + h * vector, lambda _, outputs: few.loss(outputs).item()) for h in (step, -step)
        )
        return (ahead - behind) / (2 * step), max(abs(ahead), abs(behind))

    found = (slope @ vector).item()
    (long, size), (short, _) = rise(STEP), rise(STEP / 2)
    allowed = ALLOWED * abs(short) + SPREAD * abs(long - short) + ROUNDING * 2.2e-16 * size / STEP
    # false for NaN too, which both may be
    if abs(found - short) > allowed:
        return abs(found - short) / max(abs(short), abs(found))
    return None
