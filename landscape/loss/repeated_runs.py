"""How far two runs of one computation may differ: by the order of sums where a device leaves that open, else not."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.loss.complex_numbers import is_whole

UNORDERED = 1e-4
"""Share by which sums without a fixed order differ at most, as GPUs have them."""

PRECISE = 1e-8
"""Largest share that rounding in float64 makes, by far."""

HALF = (torch.float16, torch.bfloat16)


def allowed_between_runs(value: Tensor) -> float:
    """The share by which a value may differ from one run to the next; 0 for whole numbers.

    On a CPU the sums of a computation have one order, and 20 roundings are plenty. A number in half precision is
    rounded once, from a sum in float32, so that its last digit alone may differ.
    """
    if is_whole(value):
        return 0.0
    eps = torch.finfo(value.dtype).eps
    if value.dtype in HALF:
        return 2 * eps
    return 20 * eps if value.device.type == "cpu" else max(UNORDERED, 20 * eps)
