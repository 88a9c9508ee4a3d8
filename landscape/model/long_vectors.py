"""Sums over vectors as long as the weights, in float64 without a copy of them in float64, and lengths.

The squares of short vectors are 0 in float32, and those of long ones infinite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PIECE = 2**20
"""Entries that are copied to float64 at a time."""

LEAST, MOST = 1e-140, 1e140
"""Norms between these have no squares in float64 that are 0 or infinite."""


def dot(one: Tensor, other: Tensor) -> float:
    """The inner product of two vectors (n,), summed in float64."""
    pieces = zip(one.split(PIECE), other.split(PIECE), strict=True)
    return float(torch.stack([a.double() @ b.double() for a, b in pieces]).sum())


def norm(vector: Tensor, order: float = 2) -> float:
    """The norm of a vector (n,), summed in float64."""
    found = _norm(vector, order, 1.0)
    if LEAST < found < MOST:
        return found
    # squares in float64 that are no numbers, or lose digits
    unit = float(power_of_two(vector))
    return found if unit == 1 else unit * _norm(vector, order, unit)


def _norm(vector: Tensor, order: float, unit: float) -> float:
    norms = [torch.linalg.vector_norm(_in_float64(piece, unit), order) for piece in vector.split(PIECE)]
    return float(torch.linalg.vector_norm(torch.stack(norms), order))


def _in_float64(piece: Tensor, unit: float) -> Tensor:
    return piece.double() if unit == 1 else piece.double() / unit


def length(vector: Tensor) -> float:
    """The length of a vector (n,), summed in its own precision where squares are numbers there, else in float64."""
    found = float(torch.linalg.vector_norm(vector))
    least, most = _range(vector.dtype)
    return found if least < found < most else norm(vector)


def _range(dtype: torch.dtype) -> tuple[float, float]:
    """Lengths between these are not changed by squares that are 0 or infinite in a dtype."""
    # squares in half precision are summed in float32
    squares = torch.finfo(torch.promote_types(dtype, torch.float32))
    own = torch.finfo(dtype)
    return max(1e4 * squares.tiny**0.5, 16 * own.tiny), min(1e-4 * squares.max**0.5, own.max / 16)


def power_of_two(vector: Tensor, dim: int | list[int] | None = None) -> Tensor:
    """The power of two below the largest magnitude of the entries, along `dim` if given; 1 if that is 0 or infinite.

    Squares of entries that are divided by it are neither 0 nor infinite, and the division rounds no entry.
    """
    # nothing has no largest entry, but a length of 0
    order = math.inf if vector.numel() else 2
    largest = torch.linalg.vector_norm(vector, order, dim=dim, keepdim=dim is not None)
    usable = (largest > 0) & largest.isfinite()
    # of its own dtype's range, and not below the smallest normal number, by which a division may be infinite
    own = torch.finfo(largest.dtype)
    exponent = torch.where(usable, largest, 1).log2().floor()
    return exponent.clamp(math.log2(own.tiny), math.floor(math.log2(own.max)) - 1).exp2()


def lengths(tensor: Tensor, dim: int | list[int]) -> Tensor:
    """The lengths of the vectors along some axes, which stay with size 1, whatever the entries' size."""
    unit = power_of_two(tensor, dim)
    return unit * torch.linalg.vector_norm(tensor / unit, dim=dim, keepdim=True)


def of_length(vector: Tensor, wanted: Tensor | float, out: Tensor | None = None) -> Tensor:
    """A vector scaled to a length; in the tensor `out` if given. Zero stays zero."""
    scaled = torch.div(vector, power_of_two(vector), out=out)
    found = torch.linalg.vector_norm(scaled)
    return scaled.mul_(torch.where(found == 0, 0.0, wanted / found))
