"""Rows of embeddings that are constants to torch as inputs (`padding_idx`), which differences must not move."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from landscape.guards.in_float64 import InFloat64
from landscape.model.derivatives import derivative, padding_rows


@torch.enable_grad()
def slope_and_padding(few: InFloat64, point: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient (n,) at a point (n,) in float64, and which weights (n,) lie in a padding row.

    Call it outside of `twice_differentiable`, which hides these rows.
    """
    variable = point.detach().requires_grad_()
    weights = few.layout.unflatten(variable)
    is_padding = torch.zeros_like(point, dtype=torch.bool)
    rows = few.layout.unflatten(is_padding)

    def differentiate(outputs: Any) -> Tensor:
        loss = few.loss(outputs)
        for name, row in padding_rows(loss, weights):
            rows[name][row] = True
        return derivative(loss, variable)

    return few.at(weights, differentiate), is_padding


def without_padding_rows(few: InFloat64, vectors: Tensor) -> Tensor:
    """Vectors (k, n) with 0 at padding rows, whose products are the same.

    Raises:
        ValueError: such a row is more than an input, as in a tied head, so that its products are others.
    """
    slope, is_padding = slope_and_padding(few, few.theta.double())
    if (slope[is_padding] != 0).any():
        raise ValueError(
            "model: an operation of it has no second derivative in torch, and a row of an embedding is a constant as "
            "an input (padding_idx) and a variable elsewhere, such as in a tied head: differences of gradients, which "
            "would stand in for products, move both; give embedding.padding_idx = None, or put a formula in plain "
            "operations in the place of the operation"
        )
    return vectors.masked_fill(is_padding, 0) if is_padding.any() else vectors
