"""Whether a loss depends on what differs between two outputs of the same samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from landscape.data.complex_numbers import as_real
from landscape.guards.repeated_runs import is_dense, is_inexact

ALLOWED = 1e-4
"""Share of the largest entry by which entries in float64 may differ and count as equal; 0.05 in shorter dtypes."""

REPEATS = 1e-6
"""Relative difference of two losses that are equal but for the order of sums."""

NOISE = 100.0
"""Size of the numbers that replace entries, relative to the largest entry."""


def loss_reads_what_differs(one: Any, other: Any, loss_of: Callable[[Any], Tensor]) -> bool:
    """Whether a loss depends on entries in which two outputs of the same samples differ by more than rounding.

    Labels that are ignored, and masks, leave out such entries as padded places. The entries get random numbers, so that
    also a loss that is flat there, like a hinge, is noticed.

    Args:
        one, other: outputs in any tree. True if they have other forms.
        loss_of: outputs -> mean loss.
    """
    (leaves, form), (others, form_of_other) = tree_flatten(one), tree_flatten(other)
    pairs = [(a, b) for a, b in zip(leaves, others, strict=False) if is_dense(a)]
    if form != form_of_other or any(not is_dense(b) or a.shape != b.shape for a, b in pairs):
        return True
    places = {place: _apart(leaf, others[place]) for place, leaf in enumerate(leaves) if is_dense(leaf)}
    apart = {place: where for place, where in places.items() if where.any()}
    if not apart:
        return False
    if not all(is_inexact(leaves[place]) for place in apart):
        return True
    own = loss_of(one)
    draws = torch.Generator().manual_seed(0)
    for _ in range(2):
        # masks and other outputs that are the same in both stay as they are
        replaced = [
            torch.where(apart[place], _noise(leaf, draws), leaf) if place in apart else leaf
            for place, leaf in enumerate(leaves)
        ]
        found = loss_of(tree_unflatten(replaced, form))
        if not abs(float(found) - float(own)) <= REPEATS * abs(float(own)):
            return True
    return False


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """Where two tensors of one shape differ by more than rounding."""
    if not is_inexact(one):
        return one != other
    allowed = ALLOWED if one.dtype in (torch.float64, torch.complex128) else 0.05
    is_near = (one - other).abs() <= allowed * _largest(other)
    return ~(is_near | (one == other) | (one.isnan() & other.isnan()))


def _largest(tensor: Tensor) -> float:
    return float(as_real(tensor).abs().nan_to_num(0, 0, 0).amax()) if tensor.numel() else 0.0


def _noise(tensor: Tensor, draws: torch.Generator) -> Tensor:
    drawn = torch.randn(tensor.shape, generator=draws, device="cpu").to(tensor)
    return NOISE * (_largest(tensor) or 1.0) * drawn
