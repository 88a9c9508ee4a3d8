"""A loss with its gradient in the outputs, which tells whether a loss is a mean where all losses are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

ALLOWED = 1e-3
"""Largest relative difference between a batch and the mean over its pieces; `ALLOWED_IN_HALF` in half precision."""

ALLOWED_IN_HALF = 0.05


@dataclass(frozen=True)
class LossAndSlopes:
    """A loss and its gradient in the outputs.

    Attributes:
        loss: a scalar, detached.
        slopes: for each floating-point tensor of the outputs, the gradient in its shape; None if torch has none.
    """

    loss: Tensor
    slopes: list[Tensor] | None

    @classmethod
    def of(cls, loss_of: Callable[[Any], Tensor], outputs: Any) -> LossAndSlopes:
        """The loss at some outputs.

        Args:
            loss_of: outputs -> a scalar.
            outputs: tensors in any tree.
        """
        with torch.inference_mode(False), torch.enable_grad():
            variable = tree_map(_as_variable, outputs)
            loss = loss_of(variable)
            leaves = [leaf for leaf in tree_leaves(variable) if _is_variable(leaf)]
            try:
                slopes = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            except RuntimeError:
                return cls(loss.detach(), None)
        return cls(loss.detach(), list(slopes))


def slopes_add_up(whole: LossAndSlopes, parts: Sequence[LossAndSlopes], shares: Sequence[float]) -> bool:
    """Whether the slopes of a batch are those of its pieces, each times its share; True where there are none.

    Args:
        whole: of the batch.
        parts: of its pieces, in order.
        shares: of the pieces in the mean loss. A piece with the share 0 has no slopes.
    """
    if whole.slopes is None or any(part.slopes is None for part in parts):
        return True
    dtypes = {whole.loss.dtype, *(slope.dtype for slope in whole.slopes)}
    is_long = dtypes <= {torch.float32, torch.float64}
    apart = length = 0.0
    for place, slope in enumerate(whole.slopes):
        pieces = [
            part.slopes[place].double() * share if share else torch.zeros_like(part.slopes[place]).double()
            for part, share in zip(parts, shares, strict=True)
            if part.slopes is not None
        ]
        joined = torch.cat(pieces)
        apart += float((slope.double() - joined).square().sum())
        length += float(joined.square().sum())
    # squares; no number on either side says nothing
    return not apart > (ALLOWED if is_long else ALLOWED_IN_HALF) ** 2 * length


def _as_variable(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
        return leaf
    return leaf.detach().clone().requires_grad_()


def _is_variable(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad
