"""Arithmetic on lists of tensors. A list stands for one long vector, such as a gradient in parameter order.

The functions `torch._foreach_*` take a whole list in one kernel; `torch.optim` uses them too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ncsam.methods.sharded import whole

PLAIN = (Tensor, nn.Parameter)
"""Types of tensors that lie whole in one process."""

SMALLEST_NORM, LARGEST_NORM = 1e-10, 1e18
"""Norms between which no square that matters is 0 or infinite in float32."""


def norm(tensors: list[Tensor]) -> Tensor:
    """The l2 norm of all entries together, a scalar; in float32 for half precision, which cannot hold the squares.

    A loss may have any scale. Where float32 cannot hold the squares either, the norm is computed in float64.
    """
    if _are_half(tensors):
        return norm([tensor.float() for tensor in tensors])
    if tensors[0].is_cuda and all(
        type(tensor) in PLAIN and tensor.dtype == torch.float32 for tensor in tensors
    ):
        # to look at a norm in float32 would wait for the GPU
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float64)))
    found = whole(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors))))
    if found.dtype == torch.float32 and not SMALLEST_NORM < found < LARGEST_NORM:
        return norm([_in_float64(tensor) for tensor in tensors])
    return found


def _are_half(tensors: list[Tensor]) -> bool:
    return any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors)


def _in_float64(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float64))


def as_real(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors, with the real and the imaginary parts of complex ones as numbers of their own, in one more axis."""
    return [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in tensors]


def inner_product(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """The sum of the products of all entries, a scalar tensor; in float64 where float32 cannot hold the products.

    Of complex entries it is the real part of conj(a) b, the inner product of which `norm` is the norm.
    """
    if any(tensor.is_complex() for tensor in first):
        return inner_product(as_real(first), as_real(second))
    if _are_half(first):
        return inner_product([tensor.float() for tensor in first], [tensor.float() for tensor in second])
    if first[0].device.type == "cpu":
        found = whole(torch.stack([product.sum() for product in torch._foreach_mul(first, second)]).sum())
        if found.dtype != torch.float32 or SMALLEST_NORM**2 < found.abs() < LARGEST_NORM**2:
            return found
    products = [
        (_in_float64(one) * _in_float64(other)).sum() for one, other in zip(first, second, strict=True)
    ]
    return whole(torch.stack(products).sum())


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient of two scalars; the numerator where the denominator is 0, without waiting for a GPU to know it."""
    return numerator / denominator.where(denominator > 0, denominator.new_ones(()))


def scaled(tensors: list[Tensor], factor: Tensor | float) -> list[Tensor]:
    """All entries times one factor. The factor may be too large for half precision."""
    if _are_half(tensors):
        return [(tensor.float() * factor).to(tensor.dtype) for tensor in tensors]
    return list(torch._foreach_mul(tensors, _fitting(factor, tensors)))


def _fitting(factor: Tensor | float, tensors: list[Tensor]) -> Tensor | float:
    """The factor in float32 if the tensors are: one kernel on a GPU takes tensors and factor of one dtype."""
    if isinstance(factor, Tensor) and all(tensor.dtype == torch.float32 for tensor in tensors):
        return factor.float()
    return factor


def added(first: list[Tensor], second: list[Tensor], *, alpha: float = 1.0) -> list[Tensor]:
    """first + alpha * second."""
    return list(torch._foreach_add(first, second, alpha=alpha))


def scaled_to(tensors: list[Tensor], length: float | Tensor) -> list[Tensor]:
    """The same direction with l2 norm `length`, as SAM's rho g / ||g|| (Eq. 9). Zero stays zero."""
    total = norm(tensors)
    return scaled(tensors, torch.where(total == 0, torch.zeros_like(total), length / total))


def project_onto_ball(tensors: list[Tensor], radius: float) -> Tensor:
    """Proj of Eq. 13, in place: the vector is scaled down to norm `radius` if it is longer. Returns whether it was."""
    total = norm(tensors)
    longer = total > radius
    factor = torch.where(longer, total.reciprocal() * radius, torch.ones_like(total))
    if _are_half(tensors):
        torch._foreach_copy_(tensors, scaled(tensors, factor))
    else:
        torch._foreach_mul_(tensors, _fitting(factor, tensors))
    return longer


def cosine(first: list[Tensor], second: list[Tensor]) -> float:
    """The cosine between two directions, which rounding does not lead beyond -1 or 1; NaN if either is zero."""
    lengths = norm(first) * norm(second)
    return (inner_product(first, second) / lengths).clamp(-1, 1).item() if lengths > 0 else float("nan")
