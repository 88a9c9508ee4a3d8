"""Checks that a model's gradient is the gradient of its loss, by a derivative and a difference of losses."""

from __future__ import annotations

import torch

from landscape.loss.derivatives import derivative
from landscape.loss.in_float64 import InFloat64

STEP = 1e-7
"""Length of a step, relative to the weights. So short a step needs float64, and seldom crosses the kink of a ReLU."""

ALLOWED = 1e-3
"""Largest relative difference of a right gradient. Right ones differ by about 1e-6, wrong ones by 1e-2 or more."""

SPREAD = 10
"""The differences over a step and over half a step give an error. The gradient may differ by this many errors."""

ROUNDING = 100
"""Two equal losses may differ by this many units in the last place."""


def check_first_derivatives(few: InFloat64) -> None:
    """Compares the gradient of a few samples' loss along a direction with differences of the loss.

    There is no comparison if the model does not run in float64, or rounds to a shorter dtype inside. A point at which
    the differences do not settle is not compared either.

    Raises:
        ValueError: the derivatives and the differences disagree at two points and in two directions.
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
        f"model: its gradient is not that of its loss: along a direction the two differ by {max(errors):.2g} "
        "of the gradient; a straight-through estimator, a reversed or scaled gradient, a hook that changes gradients, "
        "a detach() or no_grad() of what depends on the weights, a reentrant checkpoint, or a write to weights within "
        "forward gives such gradients; freeze weights that are cut off (requires_grad_(False)), give checkpoints "
        "use_reentrant=False; "
        "losses and surfaces can still be computed"
    )


@torch.enable_grad()
def _error(few: InFloat64, seed: int) -> float | None:
    """The relative difference at a point near theta; None if it is within the error of the differences."""
    point, vector = few.draws(seed)
    slope = few.run(point, lambda variable, outputs: derivative(few.loss(outputs), variable))
    # an embedding's padding row has no gradient, but moves the loss; a whole parameter without gradient was cut off
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
    # also false if both are NaN
    if abs(found - short) > allowed:
        return abs(found - short) / max(abs(short), abs(found))
    return None
