"""Makes one tensor of outputs of any form, which a Gauss-Newton matrix needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from landscape.data.complex_numbers import as_complex, as_real, is_whole
from landscape.model.derivatives import derivative


def as_one_tensor(outputs: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """The numbers of outputs as one real tensor, and the function that turns such a tensor into outputs.

    Each floating-point or complex tensor is a part; a complex number is its real and its imaginary part.

    Args:
        outputs: tensors, numbers and names in tuples, lists, dicts and other trees that torch knows. A single tensor of
            floating-point numbers is returned as it is.

    Raises:
        TypeError: the outputs hold an object that torch cannot take apart, or no floating-point tensor.
    """
    if isinstance(outputs, Tensor) and not is_whole(outputs):
        return (as_real(outputs), as_complex) if outputs.is_complex() else (outputs, lambda scores: scores)
    leaves, form = tree_flatten(outputs)
    for leaf in leaves:
        if not isinstance(leaf, Tensor | int | float | str | None):
            raise TypeError(
                f"forward: its outputs hold a {type(leaf).__name__}, whose tensors cannot be found; return tensors "
                "alone, in tuples, lists or dicts"
            )
    moving = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and not is_whole(leaf)]
    if not moving:
        raise TypeError(
            f"forward: its outputs hold no floating-point tensor, but {_dtypes(leaves)}, so that they have no "
            "derivatives; return the scores before they are rounded, counted or compared; losses and surfaces can be "
            "computed as it is"
        )
    real = [as_real(leaves[i]) for i in moving]
    shapes = [part.shape for part in real]
    dtypes = [part.dtype for part in real]
    are_complex = [leaves[i].is_complex() for i in moving]

    def outputs_of(scores: Tensor) -> Any:
        whole = list(leaves)
        parts = scores.split([shape.numel() for shape in shapes])
        for i, part, shape, dtype, is_complex in zip(moving, parts, shapes, dtypes, are_complex, strict=True):
            found = part.view(shape).to(dtype)
            whole[i] = as_complex(found) if is_complex else found
        return tree_unflatten(whole, form)

    return torch.cat([part.flatten() for part in real]), outputs_of


def _dtypes(leaves: list[Any]) -> str:
    return ", ".join(sorted({str(leaf.dtype) for leaf in leaves if isinstance(leaf, Tensor)})) or "no tensor"


def slope_in_outputs(outputs: Any, loss: Callable[[Any], Tensor]) -> Tensor:
    """The gradient of a loss of outputs in the outputs, in the form of `as_one_tensor`; a constant."""
    scores, whole = as_one_tensor(outputs)
    scores = scores.detach().requires_grad_()
    return derivative(loss(whole(scores.clone())), scores)


def holds_constants(outputs: Any) -> bool:
    """Whether outputs hold tensors without derivatives, which a trace would freeze."""
    return any(isinstance(leaf, Tensor) and is_whole(leaf) for leaf in tree_flatten(outputs)[0])
