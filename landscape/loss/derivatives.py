"""Derivatives that are zero if nothing depends on the variable, and a check that torch records them."""

from __future__ import annotations

import torch
from torch import Tensor


def derivative(
    of: Tensor, by: Tensor, *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """The gradient of the scalar `of` with respect to `by`; zero if `of` does not depend on `by`."""
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


def check_that_gradients_are_recorded(*tensors: Tensor) -> None:
    """Checks that torch records gradients. In inference mode a derivative would silently be zero.

    Raises:
        RuntimeError: `torch.inference_mode()` is on, or a tensor was made there.
    """
    if torch.is_inference_mode_enabled() or any(tensor.is_inference() for tensor in tensors):
        raise RuntimeError(
            "torch.inference_mode: gradients and products with the Hessian cannot be had there, nor for a model or "
            "data made there; make the Objective and measure outside of it, or use torch.no_grad() instead"
        )
