"""Vectors that a caller gives: of torch, of NumPy, or of plain numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


def tensor_of(values: object) -> Tensor:
    """A tensor as it is, and anything else on the CPU, whatever the default device of torch."""
    if isinstance(values, np.ndarray):
        # torch takes no other byte order, no strides that run backward, and nothing longer than float64
        dtype = values.dtype.newbyteorder("=")
        longest = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}.get(dtype.kind, dtype)
        values = np.asarray(values, longest if dtype.itemsize > longest.itemsize else dtype, order="C")
    return values if isinstance(values, Tensor) else torch.as_tensor(values, device="cpu")


def vector_of(field: str, values: object, like: Tensor) -> Tensor:
    """One real vector or block of vectors, dense, in the caller's dtype.

    Args:
        field: the name of the vector, for errors.
        values: a tensor, an array or numbers.
        like: the weights (n,).

    Raises:
        TypeError: it is none, such as a model.
        ValueError: it is complex.
    """
    try:
        if isinstance(values, nn.Module | Mapping | str):
            raise TypeError("no numbers")
        vector = tensor_of(values)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"{field}: must be one vector ({len(like)},), got {type(values).__name__}; objective.flatten(...) makes "
            "one of a model, a state dict, or tensors in the order of the parameters"
        ) from error
    check_that_it_is_real(field, vector, like)
    return vector.to_dense() if vector.layout != torch.strided else vector


def whole_vector(field: str, values: object, like: Tensor) -> Tensor:
    """One vector (n,), in the dtype and on the device of the weights.

    Raises:
        TypeError, ValueError: it is none, as for `vector_of`, or has another length.
    """
    vector = vector_of(field, values, like)
    if vector.shape != like.shape:
        raise ValueError(f"{field}: must be {tuple(like.shape)}, got {tuple(vector.shape)}")
    return vector.detach().to(like)


def check_that_it_is_real(field: str, vector: Tensor, like: Tensor) -> None:
    """Raises ValueError for complex numbers, whose imaginary part would be lost."""
    if vector.is_complex() and not like.is_complex():
        raise ValueError(
            f"{field}: must hold real numbers, got {vector.dtype}, whose imaginary part would be lost; give .real, or "
            "measure along real and imaginary part by themselves"
        )
