"""A context in which what is computed in float64 stays in float64, whatever dtypes the code names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from landscape.data.complex_numbers import is_whole
from landscape.model.uncompiled import Uncompiled

LONG = (torch.float64, torch.complex128)

LONG_OF = {
    torch.float32: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float16: torch.float64,
    torch.complex64: torch.complex128,
}


class Float64Throughout(Uncompiled):
    """A context that leaves out casts to shorter dtypes (`.float()`, `dtype=torch.float32`), for checks in float64.

    Models of transformers compute their norms, and losses of logits, in float32 in any case. New tensors of floating
    point, such as masks, are made in float64, and shorter ones are cast where they meet longer ones.

    Attributes:
        casts: whether a cast was left out, or a tensor made longer. The same derivatives then need this context.
        shortens: whether an operation has turned a tensor in float64 (real or complex) into a shorter dtype even so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.casts = False
        self.shortens = False

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the operation."""
        options = dict(options or {})
        if options.get("dtype") in LONG_OF:
            options["dtype"], self.casts = LONG_OF[options["dtype"]], True
        given = inexact((arguments, options))
        has_long = any(leaf.dtype in LONG for leaf in given)
        schema = getattr(function, "_schema", None)
        makes_new = schema is not None and not schema.is_mutable
        if makes_new and has_long and not all(leaf.dtype in LONG for leaf in given):
            arguments, options = tree_map(self._longer, (arguments, options))
        result = function(*arguments, **options)
        if makes_new and not given:
            return tree_map(self._longer, result)
        if has_long:
            self.shortens |= any(leaf.dtype not in LONG for leaf in inexact(result))
        return result

    def _longer(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dtype not in LONG_OF:
            return leaf
        self.casts = True
        return leaf.to(LONG_OF[leaf.dtype])


def inexact(tree: Any) -> list[Tensor]:
    """The floating-point and complex tensors of a tree."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and not is_whole(leaf)]
