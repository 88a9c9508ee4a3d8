"""The rounding of losses in the dtype of the weights, below which a difference of two losses says nothing."""

from __future__ import annotations

import torch

UNITS = 8
"""The largest difference of two computations of one loss, in units in the last place."""


def rounding_of(loss: float, dtype: torch.dtype) -> float:
    """The largest difference of two losses of about this size that rounding alone can give."""
    return UNITS * torch.finfo(dtype).eps * abs(loss)
