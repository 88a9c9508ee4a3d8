"""How far two runs of one computation may differ: by the order of sums, which several threads leave open."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from landscape.data.complex_numbers import as_real, is_whole

UNORDERED = 1e-4
"""Share by which sums without a fixed order differ at most, as GPUs and several threads of a CPU have them."""

ALLOWED_IN_FLOAT64 = 1e-8
"""Largest share by which two runs in float64 may differ; rounding and the order of sums make far less."""

HALF = (torch.float16, torch.bfloat16)

RUNS = 4
"""Runs in float64 that tell whether results change."""


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


def changes(share: float, value: Tensor, in_float64: Callable[[], float | None]) -> bool:
    """Whether runs of one computation differ by more than rounding and the order of sums.

    In half precision float64 decides where the computation runs in it, because sums that are rounded at each term may
    differ by any share. In longer dtypes float64 decides below the limit alone: what differs by more would give no
    number to rely on, whatever its cause.

    Args:
        share: by which the runs differ.
        value: one of the results.
        in_float64: the share by which runs in float64 differ; None where they cannot be had. It is asked where the runs
            differ at all.
    """
    is_large = share > allowed_between_runs(value)
    if share == 0 or (is_large and value.dtype not in HALF):
        return is_large
    precise = in_float64()
    return is_large if precise is None else precise > ALLOWED_IN_FLOAT64


def share_between_runs(run: Callable[[], Any]) -> float | None:
    """The largest share by which the results of some runs differ from the first; None if a run has no result."""
    first, *others = (run() for _ in range(RUNS))
    if first is None or any(other is None for other in others):
        return None
    return max(share_apart(other, first) for other in others)


def share_apart(again: Any, results: Any) -> float:
    """The largest difference of the entries of two results, as a share of the largest entry of a tensor.

    Infinite where the forms differ, or NaN and infinite entries do. Only dense tensors are compared.

    Args:
        again, results: tensors in any tree.
    """
    pairs = [[leaf.detach() for leaf in tree_leaves(tree) if is_dense(leaf)] for tree in (again, results)]
    if len(pairs[0]) != len(pairs[1]):
        return math.inf
    return max(map(_share_of_tensors, *pairs), default=0.0)


def _share_of_tensors(again: Tensor, result: Tensor) -> float:
    if again.shape != result.shape or again.dtype != result.dtype:
        return math.inf
    one, other = as_real(again).double(), as_real(result).double()
    finite = other.isfinite()
    if not torch.equal(one[~finite].nan_to_num(), other[~finite].nan_to_num()) or not torch.equal(
        one.isfinite(), finite
    ):
        return math.inf
    difference = float((one[finite] - other[finite]).abs().amax()) if finite.any() else 0.0
    return difference / float(other[finite].abs().amax() or difference) if difference else 0.0


def is_inexact(leaf: Any) -> bool:
    """Whether a part of results is a dense tensor of floating-point or complex numbers."""
    return is_dense(leaf) and not is_whole(leaf)


def is_dense(leaf: Any) -> bool:
    """Whether a part of results is a tensor of which all entries are stored."""
    return isinstance(leaf, Tensor) and leaf.layout == torch.strided
