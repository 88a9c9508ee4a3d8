"""Whether two computations of the same outputs agree but for rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.data.complex_numbers import as_real, is_whole


def agree_but_for_rounding(again: Tensor, outputs: Tensor) -> bool:
    """Whether outputs of the same samples in different batches are the same. NaN equals NaN.

    Rounding depends on the batch, and parts of a model may compute with less precision than its outputs have (bfloat16,
    TF32). Dropout and BatchNorm change outputs by about the size of the outputs. The tolerance of 5% lies between both.
    """
    is_precise = outputs.dtype in (torch.float64, torch.complex128)
    return agree_within(again, outputs, 1e-4 if is_precise else 0.05)


def agree_within(again: Tensor, outputs: Tensor, tolerance: float) -> bool:
    """Whether two tensors differ by at most a share of the largest value, or by 20 roundings in their dtype."""
    if again.shape != outputs.shape or is_whole(outputs):
        return torch.equal(again, outputs)
    return differ_by_at_most(again, outputs, max(tolerance, 20 * torch.finfo(outputs.dtype).eps))


def differ_by_at_most(again: Tensor, outputs: Tensor, share: float) -> bool:
    """Whether two tensors of one shape differ by at most a share of the largest value. NaN equals NaN."""
    if again.shape != outputs.shape:
        return False
    again, outputs = (as_real(each.detach()).double() for each in (again, outputs))
    largest = outputs.abs().nan_to_num(0, 0, 0).amax() if outputs.numel() else 0
    return torch.allclose(again, outputs, rtol=0, atol=share * float(largest), equal_nan=True)
