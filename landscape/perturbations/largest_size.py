"""Refuses perturbations that are too large for the dtype of the weights."""

from __future__ import annotations

import torch

ROOM = 16
"""Sums of a few perturbations and weights, and of their squares, must have room beside the largest."""


def check_size(field: str, size: float, dtype: torch.dtype, *, is_squared: bool) -> None:
    """Checks that a perturbation of a size is a number in the dtype of the weights, beside which others have room.

    Args:
        field: the argument that holds the size.
        size: positive.
        dtype: of the weights; half precision computes in float32.
        is_squared: whether squares of the size must be numbers too, as in steps of an ascent within a ball.

    Raises:
        ValueError: it is too large.
    """
    dtype = torch.promote_types(dtype, torch.float32)
    largest = float(torch.finfo(dtype).max)
    most = (largest**0.5 if is_squared else largest) / ROOM
    if size > most:
        other = "" if dtype == torch.float64 else ", or make the Objective with dtype=torch.float64"
        raise ValueError(
            f"{field}: {size:.3g} is too large for {dtype}, in which at most {most:.2g} can be computed with; give a "
            f"smaller {field}{other}"
        )
