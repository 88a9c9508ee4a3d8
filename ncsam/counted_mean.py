"""The mean over the samples that count."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_over(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of the values that count; to the bit that of all values where all count.

    Where none counts, it is NaN and its gradient zero, as those of torch's cross-entropy.

    Args:
        values: of any shape.
        counts: bool, of the same shape.
    """
    kept = counts.sum(dtype=torch.promote_types(values.dtype, torch.float32))
    return torch.where(counts, values, 0).mean() * (counts.numel() / kept).to(values.dtype)
