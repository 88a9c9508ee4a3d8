"""Orthonormal vectors: long ones are changed in place, in pieces, and inner products are summed in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landscape.ranks import ALONE, Ranks

PIECE = 2**14
"""Rows that are copied to float64 at a time: few enough for the processor's cache."""
DEVICE_PIECE = 2**20
"""The same on a GPU, where each piece costs a launch."""

SHORTENED = 2**-0.5
"""A part in a basis is taken out of a block. If the rest is shorter than this share of the block, rounding of that part
may be left in the rest (Daniel, Gragg, Kaufman and Stewart 1976)."""
MOST_PASSES = 4

LEAST_RATIO_OF_SQUARES = 1e-2
"""Columns of which the Gram matrix' smallest eigenvalue exceeds this share of the largest are made orthonormal in one
pass: its rounding is at most ten times that of the columns, and averages out over their entries."""


def precision_of(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which the vectors of a search are kept: that of the operator, float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def inner(
    basis: Tensor, block: Tensor, ranks: Ranks = ALONE, *, in_pieces: torch.dtype = torch.float64
) -> Tensor:
    """The inner products (m, k) of the columns of a basis (n, m) and a block (n, k), in float64.

    Within pieces of the columns they are summed in the dtype `in_pieces`.
    """
    if basis.dtype == torch.float64:
        return ranks.over_entries(basis.T @ block)
    total = torch.zeros(basis.shape[1], block.shape[1], dtype=torch.float64, device=block.device)
    for left, right in zip(_pieces(basis), _pieces(block), strict=True):
        total += left.T.to(in_pieces) @ right.to(in_pieces)
    return ranks.over_entries(total)


def _pieces(block: Tensor) -> tuple[Tensor, ...]:
    return block.split(PIECE if block.device.type == "cpu" else DEVICE_PIECE)


def lengths_of(block: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """The lengths (k,) of the columns of a block (n, k), in float64."""
    if block.dtype == torch.float64 and not ranks.share_vectors:
        return torch.linalg.vector_norm(block, dim=0)
    lengths = [torch.linalg.vector_norm(piece, dim=0, dtype=torch.float64) for piece in _pieces(block)]
    return ranks.over_entries(torch.stack(lengths).square().sum(0)).sqrt()


def orthogonalize(
    block: Tensor,
    basis: Tensor,
    ranks: Ranks = ALONE,
    *,
    most_passes: int = MOST_PASSES,
    in_pieces: torch.dtype = torch.float64,
) -> Tensor:
    """Takes out of a block (n, k), in place, its part in the span of a basis (n, m).

    This is repeated, up to `most_passes` times in all, only while the rest of the block is so short that rounding may
    be a part of the rest. `in_pieces` is that of `inner`.

    Returns:
        The coefficients (m, k) of the part, in float64.
    """
    coefficients = torch.zeros(basis.shape[1], block.shape[1], dtype=torch.float64, device=block.device)
    for number in range(1, most_passes + 1):
        found = inner(basis, block, ranks, in_pieces=in_pieces)
        coefficients += found
        block.addmm_(basis, found.to(block.dtype), alpha=-1)
        if number == most_passes:
            break
        after = lengths_of(block, ranks)
        # part and rest are orthogonal, so that no pass over the block measures it before
        before = torch.hypot(after, torch.linalg.vector_norm(found, dim=0))
        if not (after < SHORTENED * before).any():
            break
    return coefficients


def orthonormal(block: Tensor, ranks: Ranks = ALONE) -> tuple[Tensor, Tensor]:
    """Orthonormal columns (n, k), and the matrix (k, k) in float64 with block = columns @ matrix.

    The block is overwritten. A column that depends on the others may become zero.
    """
    if block.dtype == torch.float64 and block.shape[1] > 1 and not ranks.share_vectors:
        columns, triangle = torch.linalg.qr(block)
        return columns, triangle
    if block.shape[1] == 1:
        return _unit_vector(block, ranks)
    coupling = torch.eye(block.shape[1], dtype=torch.float64, device=block.device)
    for _ in range(MOST_PASSES):
        products = inner(block, block, ranks)
        if not torch.isfinite(products).all():
            return block, torch.full_like(coupling, math.nan)
        squares, axes = torch.linalg.eigh(products)
        # the first pass leaves nearly dependent columns of length 1, which the next ones can tell apart
        lengths = squares.clamp(min=0).sqrt()
        inverse = torch.where(lengths > 0, 1 / lengths, torch.zeros_like(lengths))
        combine(block, axes * inverse)
        coupling = lengths.unsqueeze(1) * axes.T @ coupling
        if bool((squares > 0.5).all() & (squares < 2).all()) or bool(
            (squares > LEAST_RATIO_OF_SQUARES * squares[-1]).all()
        ):
            break
    return block, coupling


def _unit_vector(column: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """A column (n, 1), made a unit vector in place, and its length (1, 1); a column of zeros stays as it is."""
    length = lengths_of(column, ranks)
    if not torch.isfinite(length):
        return column, torch.full_like(length, math.nan).unsqueeze(0)
    column.mul_(torch.where(length == 0, length, 1 / length).to(column.dtype))
    return column, length.unsqueeze(0)


def combine(basis: Tensor, combination: Tensor) -> None:
    """Puts combinations (m, j) of the columns of a basis (n, m) in place of the first j of these."""
    combination = combination.to(basis)
    # a product lies in memory as what it is put into, or each number would be moved by itself
    columns_lie_together = basis.stride(0) == 1
    for rows in _pieces(basis):
        found = (combination.T @ rows.T).T if columns_lie_together else rows @ combination
        rows[:, : combination.shape[1]] = found
