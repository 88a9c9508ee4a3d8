"""A function of one sample, applied to many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from landscape.data.batches import samples_in


class Vectorized:
    """Applies functions of one sample to many samples: by vmap, or one by one after vmap has failed for the model.

    Attributes:
        is_possible: whether vmap has not failed yet.
    """

    def __init__(self) -> None:
        self.is_possible = True

    def __call__(self, function: Callable[..., tuple[Tensor, ...]], *arguments: Any) -> tuple[Tensor, ...]:
        """The results of all samples, stacked.

        Args:
            function: of one sample.
            arguments: trees of tensors. Row i of each tensor belongs to sample i.

        Raises:
            ValueError: the function fails for a single sample as well.
        """
        if self.is_possible:
            try:
                found: tuple[Tensor, ...] = vmap(function)(*arguments)
                return found
            except (RuntimeError, ValueError, TypeError, NotImplementedError):
                # torch cannot vectorize a layer, for example, or the model branches on a value
                self.is_possible = False
        samples = samples_in(arguments)
        assert samples is not None
        try:
            rows = [function(*tree_map(lambda leaf, i=i: leaf[i], arguments)) for i in range(samples)]
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            text = " ".join(str(error).split())[:300]
            raise ValueError(
                f"objective: derivatives of the loss of one sample fail: {text}; name other measures by measures=, or "
                "write the model in operations that torch.func can differentiate"
            ) from error
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))
