"""Derivatives that are zero if nothing depends on the variable, and a check that torch records them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge


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


def gradient_edges(of: Tensor, by: Sequence[Tensor]) -> list[GradientEdge | None]:
    """Where the gradient of the scalar `of` with respect to each of `by` lies in torch's graph; None if it is constant.

    A second derivative needs no more of the gradient. Its values are not held, unless the graph needs them.
    """
    gradient = torch.autograd.grad(of, by, create_graph=True, allow_unused=True, materialize_grads=True)
    return [get_gradient_edge(part) if part.requires_grad else None for part in gradient]


def add_derivative(
    of: Sequence[Tensor | GradientEdge | None],
    by: Sequence[Tensor],
    totals: Sequence[Tensor],
    *,
    along: Sequence[Tensor] | None = None,
    retain_graph: bool = False,
) -> None:
    """Adds the gradient of `of` to `totals`, one tensor after the other, so that no second gradient is held.

    Args:
        of: scalars, which are summed; or, with `along`, tensors of any shape or their places in torch's graph. They
            may depend on none of the variables; None stands for a constant.
        by: variables, which are leaves.
        totals: of the variables' shapes.
        along: of the shapes of `of`: the gradient of the inner product with these is meant.
        retain_graph: another derivative will be taken.
    """
    kept = [place for place, part in enumerate(of) if not is_constant(part)]
    if not kept:
        return
    for variable, total in zip(by, totals, strict=True):
        variable.grad = total
    torch.autograd.backward(
        [of[place] for place in kept],  # type: ignore[arg-type]
        None if along is None else [along[place] for place in kept],
        inputs=list(by),
        retain_graph=retain_graph,
    )
    for variable, total in zip(by, totals, strict=True):
        # torch adds in place, but for gradients of other kinds, such as sparse ones
        if variable.grad is not total:
            total.copy_(variable.grad)  # type: ignore[arg-type]
        variable.grad = None


def is_constant(part: Tensor | GradientEdge | None) -> bool:
    """Whether a tensor, or the place of one in torch's graph, depends on no variable."""
    return part is None or (isinstance(part, Tensor) and not part.requires_grad)


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
