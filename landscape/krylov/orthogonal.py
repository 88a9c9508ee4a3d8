"""Orthonormal vectors: long ones are changed in place, in pieces, and inner products are summed in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PIECE = 2**14
"""Rows that are copied to float64 at a time: few enough for the processor's cache."""
DEVICE_PIECE = 2**20
"""The same on a GPU, where each piece costs a launch."""

SHORTENED = 2**-0.5
"""A part in a basis is taken out of a block. If the rest is shorter than this share of the block, rounding of that part
may be left in the rest (Daniel, Gragg, Kaufman and Stewart 1976)."""
MOST_PASSES = 4


def precision_of(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which the vectors of a search are kept: that of the operator, float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def inner(basis: Tensor, block: Tensor) -> Tensor:
    """The inner products (m, k) of the columns of a basis (n, m) and a block (n, k), in float64."""
    if basis.dtype == torch.float64:
        return basis.T @ block
    total = torch.zeros(basis.shape[1], block.shape[1], dtype=torch.float64, device=block.device)
    for left, right in zip(_pieces(basis), _pieces(block), strict=True):
        total += left.T.double() @ right.double()
    return total


def _pieces(block: Tensor) -> tuple[Tensor, ...]:
    return block.split(PIECE if block.device.type == "cpu" else DEVICE_PIECE)


def _lengths(block: Tensor) -> Tensor:
    """The lengths (k,) of the columns of a block (n, k), in float64."""
    if block.dtype == torch.float64:
        return torch.linalg.vector_norm(block, dim=0)
    return torch.stack([piece.double().square().sum(0) for piece in _pieces(block)]).sum(0).sqrt()


def orthogonalize(block: Tensor, basis: Tensor) -> Tensor:
    """Takes out of a block (n, k), in place, its part in the span of a basis (n, m).

    This is repeated only while the rest of the block is so short that rounding may be a part of the rest.

    Returns:
        The coefficients (m, k) of the part, in float64.
    """
    coefficients = torch.zeros(basis.shape[1], block.shape[1], dtype=torch.float64, device=block.device)
    before = _lengths(block)
    for _ in range(MOST_PASSES):
        found = inner(basis, block)
        coefficients += found
        block.addmm_(basis, found.to(block.dtype), alpha=-1)
        after = _lengths(block)
        if not (after < SHORTENED * before).any():
            break
        before = after
    return coefficients


def orthonormal(block: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal columns (n, k), and the matrix (k, k) in float64 with block = columns @ matrix.

    The block is overwritten. A column that depends on the others may become zero.
    """
    if block.dtype == torch.float64 and block.shape[1] > 1:
        columns, triangle = torch.linalg.qr(block)
        return columns, triangle
    coupling = torch.eye(block.shape[1], dtype=torch.float64, device=block.device)
    for _ in range(MOST_PASSES):
        products = inner(block, block)
        if not torch.isfinite(products).all():
            return block, torch.full_like(coupling, math.nan)
        squares, axes = torch.linalg.eigh(products)
        # the first pass leaves nearly dependent columns of length 1, which the next ones can tell apart
        lengths = squares.clamp(min=0).sqrt()
        inverse = torch.where(lengths > 0, 1 / lengths, torch.zeros_like(lengths))
        combine(block, axes * inverse)
        coupling = lengths.unsqueeze(1) * axes.T @ coupling
        if block.shape[1] == 1 or bool((squares > 0.5).all() & (squares < 2).all()):
            break
    return block, coupling


def combine(basis: Tensor, combination: Tensor) -> None:
    """Puts combinations (m, j) of the columns of a basis (n, m) in place of the first j of these."""
    combination = combination.to(basis)
    for rows in _pieces(basis):
        rows[:, : combination.shape[1]] = rows @ combination
