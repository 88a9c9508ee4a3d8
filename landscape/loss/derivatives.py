"""Derivatives that are zero where nothing depends on the variable, and a check that torch records them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def derivative(
    of: Tensor, by: Tensor, *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """The gradient of the scalar `of` with respect to `by`; zero where `of` does not depend on `by`."""
    if not of.requires_grad:
        return torch.zeros_like(by)
    (result,) = torch.autograd.grad(
        of,
        by,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return result


def add_derivative(
    of: Tensor, by: Sequence[Tensor], totals: Sequence[Tensor], *, retain_graph: bool = False
) -> None:
    """Adds the gradient of the scalar `of` to `totals`, one tensor after the other, so that no second one is held.

    Args:
        of: may depend on none of the variables.
        by: variables, which are leaves.
        totals: of the same shapes.
        retain_graph: another derivative will be taken.
    """
    if not of.requires_grad:
        return
    for variable, total in zip(by, totals, strict=True):
        variable.grad = total
    torch.autograd.backward(of, inputs=list(by), retain_graph=retain_graph)
    for variable, total in zip(by, totals, strict=True):
        # torch adds in place, but for gradients of other kinds, such as sparse ones
        if variable.grad is not total:
            total.copy_(variable.grad)  # type: ignore[arg-type]
        variable.grad = None


def check_that_gradients_are_recorded(*tensors: Tensor) -> None:
    """Checks that torch records gradients here. In inference mode a derivative would be zero without a word.

    Raises:
        RuntimeError: `torch.inference_mode()` is on, or a tensor was made there.
    """
    if torch.is_inference_mode_enabled() or any(tensor.is_inference() for tensor in tensors):
        raise RuntimeError(
            "torch.inference_mode: gradients and products with the Hessian cannot be had there, nor for a model or "
            "data made there; make the Objective and measure outside of it, or use torch.no_grad() instead"
        )
