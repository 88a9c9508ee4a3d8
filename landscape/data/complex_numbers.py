"""Complex numbers as pairs of real ones, and precisions of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def as_real(tensor: Tensor) -> Tensor:
    """A complex tensor as a real one (..., 2) of real and imaginary parts; any other tensor as it is.

    A real loss of complex numbers is a function of both parts. So derivatives are those in the real tensor.
    """
    # neither torch.view_as_real, whose derivative fails for views that begin at an odd place, nor lazy conjugates
    return torch.stack([tensor.real, tensor.imag], -1) if tensor.is_complex() else tensor


def as_complex(parts: Tensor) -> Tensor:
    """The complex tensor of real and imaginary parts (..., 2)."""
    # torch.view_as_complex takes no view that begins at an odd place
    return torch.complex(parts[..., 0], parts[..., 1])


def is_whole(tensor: Tensor) -> bool:
    """Whether a tensor holds whole numbers or truth values."""
    return not tensor.is_floating_point() and not tensor.is_complex()


def in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating-point numbers in `dtype`, complex ones in that precision (at least complex64), others as they are."""
    if tensor.is_complex():
        return tensor.to(torch.complex128 if dtype == torch.float64 else torch.complex64)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def cast(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """Casts a module in place; for None not at all. `module.to(dtype)` would take the imaginary parts off buffers."""
    return module if dtype is None else module._apply(lambda tensor: in_dtype(tensor, dtype))
