"""Makes one tensor of outputs of any form, which a Gauss-Newton matrix needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from landscape.loss.derivatives import derivative


def as_one_tensor(outputs: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """The floating-point tensors of outputs as one tensor, and the function that turns such a tensor into outputs.

    Args:
        outputs: tensors, numbers and names in tuples, lists, dicts and other trees that torch knows. A single tensor is
            returned as it is.

    Raises:
        TypeError: the outputs hold an object that torch cannot take apart, or no floating-point tensor.
    """
    if isinstance(outputs, Tensor):
        return outputs, lambda scores: scores
    leaves, form = tree_flatten(outputs)
    for leaf in leaves:
        if not isinstance(leaf, Tensor | int | float | str | None):
            raise TypeError(
                f"forward: its outputs hold a {type(leaf).__name__}, whose tensors cannot be found; return tensors "
                "alone, in tuples, lists or dicts"
            )
    moving = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not moving:
        raise TypeError("forward: its outputs hold no floating-point tensor")
    shapes = [leaves[i].shape for i in moving]
    dtypes = [leaves[i].dtype for i in moving]

    def outputs_of(scores: Tensor) -> Any:
        whole = list(leaves)
        parts = scores.split([shape.numel() for shape in shapes])
        for i, part, shape, dtype in zip(moving, parts, shapes, dtypes, strict=True):
            whole[i] = part.view(shape).to(dtype)
        return tree_unflatten(whole, form)

    return torch.cat([leaves[i].flatten() for i in moving]), outputs_of


def slope_in_outputs(outputs: Any, loss: Callable[[Any], Tensor]) -> Tensor:
    """The gradient of a loss of outputs in the outputs, in the form of `as_one_tensor`; a constant."""
    scores, whole = as_one_tensor(outputs)
    scores = scores.detach().requires_grad_()
    return derivative(loss(whole(scores.clone())), scores)


def holds_constants(outputs: Any) -> bool:
    """Whether outputs hold tensors without derivatives, which a trace would freeze."""
    return any(isinstance(leaf, Tensor) and not leaf.is_floating_point() for leaf in tree_flatten(outputs)[0])
