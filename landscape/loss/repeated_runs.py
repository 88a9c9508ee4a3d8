"""How far two runs of one computation may differ: by the order of sums, which several threads leave open."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.loss.complex_numbers import is_whole

UNORDERED = 1e-4
"""Share by which sums without a fixed order differ at most, as GPUs and several threads of a CPU have them."""

ALLOWED_IN_FLOAT64 = 1e-8
"""Largest share by which two runs in float64 may differ; rounding and the order of sums make far less."""

HALF = (torch.float16, torch.bfloat16)


def allowed_between_runs(value: Tensor) -> float:
    """The share by which a value may differ between two runs where float64 cannot decide; 0 for whole numbers.

    Sums of several threads have no fixed order on a CPU either, as where entries are added to one place
    (`index_put(accumulate=True)`, scatter). A number in half precision is rounded once, from a sum in float32, so that
    its last digit alone may differ; sums that are rounded at each term differ by more, and float64 decides.
    """
    if is_whole(value):
        return 0.0
    eps = torch.finfo(value.dtype).eps
    return 2 * eps if value.dtype in HALF else UNORDERED
