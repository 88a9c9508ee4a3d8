"""Copies of batches, so that each pass sees a batch as the caller gave it."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ncsam.methods.batches import Batch

UNCHANGING = (Tensor, bool, int, float, complex, str, bytes, type(None))
"""Leaves of a batch that need no `copy.deepcopy`: tensors, which are cloned, and objects that nobody can change."""


def as_given(batch: Batch, model: nn.Module | None = None) -> Batch:
    """A copy of a batch for one pass, whose model or loss may change it: in place, or by taking entries out of a dict.

    A later pass over the same batch would see what the earlier one left. An object that cannot be copied is handed out
    as it is. Parts and weights of the model that a batch holds stay those of the model.
    """
    if batch is None or isinstance(batch, Tensor):
        return _copied(batch)
    if all(isinstance(leaf, UNCHANGING) for leaf in tree_leaves(batch)):
        return tree_map(_copied, batch)
    try:
        with _CopiedAsGiven():
            own = (*model.modules(), *model.parameters()) if model is not None else ()
            return copy.deepcopy(batch, {id(part): part for part in own})
    except Exception:
        # the class of a batch may raise any error; most passes change nothing
        return batch


def _copied(leaf: Any) -> Any:
    # torch lets nobody write to a leaf that requires a gradient, and the caller may want its gradient
    if not isinstance(leaf, Tensor) or leaf.requires_grad:
        return leaf
    made = leaf.clone()
    made.__dict__.update(leaf.__dict__)
    return made


class _CopiedAsGiven(TorchFunctionMode):
    """Inside the block `copy.deepcopy` copies tensors as `as_given` does."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _copied(args[0]) if func is Tensor.__deepcopy__ else func(*args, **(kwargs or {}))
