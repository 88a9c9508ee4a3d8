"""A check that a loss's slope in the outputs, of which some matrices are made, is its derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from landscape.guards.draws_that_differ import error_of_draws
from landscape.guards.in_float64 import EPS, InFloat64
from landscape.matrices.outputs import as_one_tensor, slope_in_outputs

STEP = 1e-7
"""Relative to the outputs. So short a step needs float64, and seldom crosses a kink."""

SHIFT = 1e-5
"""Slopes are compared at outputs this far from the model's own, relative to them: probabilities stay probabilities."""

ALLOWED = 1e-3
"""Largest relative difference of a right slope."""

SPREAD = 10
"""The differences over a step and over half a step give an error. The slope may differ by this many errors."""

ROUNDING = 100
"""Two equal losses may differ by this many units in the last place of the loss, or of the largest output."""


def check_slope_in_outputs(few: InFloat64) -> None:
    """Compares the loss's slope in the outputs along a direction with differences of the loss.

    The gradient in the weights can be right where the slope in the outputs is not: the backward pass of torch's CTC
    loss supposes that `log_softmax` comes before.

    Raises:
        ValueError: slope and differences differ in two directions.
    """

    @torch.enable_grad()
    def error_of(seed: int) -> float | None:
        return few.run(few.theta.double(), lambda _, outputs: _error(few, outputs, seed))

    error = error_of_draws(few, error_of)
    if error is None:
        return
    raise ValueError(
        "loss_fn: its slope in the outputs, as torch computes it, is not its derivative: along a direction the two "
        f"differ by {error:.2g} of it, so that the Gauss-Newton matrix and the functional Hessian would be "
        "wrong; torch's ctc_loss gives the slope in logits instead of their log_softmax; take matrix='hessian', or "
        "write the loss in plain operations"
    )


def _error(few: InFloat64, outputs: Any, seed: int) -> float | None:
    scores, whole = as_one_tensor(outputs)
    scores = scores.detach()
    size = scores.square().mean().sqrt() or 1.0
    generator = torch.Generator().manual_seed(seed)
    shift, direction = (
        size * torch.randn(scores.shape, generator=generator, device="cpu").to(scores) for _ in range(2)
    )
    # equal scores, such as those of a head that begins with 0, lie on a kink of a loss that takes the largest
    scores = scores + SHIFT * shift

    def loss(point: Tensor) -> float:
        return few.loss(whole(point)).item()

    def rise(step: float) -> float:
        return few.total(loss(scores + step * direction) - loss(scores - step * direction)) / (2 * step)

    # ranks that communicate within a pass decide alike
    found = few.total((slope_in_outputs(whole(scores), few.loss) * direction).sum().item())
    short = rise(STEP / 2)
    allowed = ALLOWED * abs(short) + ROUNDING * EPS * few.rounded / STEP
    # also false if both are NaN
    if abs(found - short) > allowed and abs(found - short) > allowed + SPREAD * abs(rise(STEP) - short):
        return abs(found - short) / max(abs(short), abs(found))
    return None
