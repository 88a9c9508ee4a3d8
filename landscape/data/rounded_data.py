"""A warning of data in float64 whose digits the model's dtype does not hold."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from landscape.data.batches import Batch, tensors_in

ALLOWED = 0.01
"""Largest change of a number by rounding, relative to the spread of the numbers."""


def warn_of_rounded_data(batch: Batch, dtype: torch.dtype) -> None:
    """Warns of numbers in float64, such as time stamps, that differ by little more than their rounding to `dtype`."""
    largest = max((_share_of_spread(tensor, dtype) for tensor in tensors_in(batch)), default=0.0)
    if largest > ALLOWED:
        warnings.warn(
            f"data: numbers in float64 are rounded to {dtype}, the dtype of the weights, which changes some by "
            f"{largest:.2g} of their spread; take an offset off first, or give dtype=torch.float64",
            stacklevel=5,
        )


def _share_of_spread(tensor: Tensor, dtype: torch.dtype) -> float:
    """The largest change by rounding, relative to the spread; in a matrix, of each column by itself."""
    if tensor.is_nested or tensor.is_meta or tensor.layout != torch.strided or not tensor.numel():
        return 0.0
    if tensor.dtype != torch.float64 or dtype == torch.float64:
        return 0.0
    columns = tensor.detach() if tensor.ndim == 2 else tensor.detach().reshape(-1, 1)
    change = (columns.to(dtype).double() - columns).abs().amax(0)
    spread = columns.amax(0) - columns.amin(0)
    # a column of one number has no digits to lose
    share = (change / spread)[(spread > 0) & change.isfinite() & spread.isfinite()]
    return float(share.max()) if share.numel() else 0.0
