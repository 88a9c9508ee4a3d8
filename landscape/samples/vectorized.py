"""A function of one sample, applied to many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from landscape.loss.batches import samples_in


class Vectorized:
    """Applies functions of one sample to many: by vmap, or one by one from where on vmap fails for a model.

    Attributes:
        is_possible: vmap did not fail so far.
    """

    def __init__(self) -> None:
        self.is_possible = True

    def __call__(self, function: Callable[..., tuple[Tensor, ...]], *arguments: Any) -> tuple[Tensor, ...]:
        """The results of all samples, stacked.

        Args:
            function: of one sample.
            arguments: trees of tensors, whose rows belong to the samples.

        Raises:
            ValueError: the function fails for a single sample too.
        """
        if self.is_possible:
            try:
                found: tuple[Tensor, ...] = vmap(function)(*arguments)
                return found
            except (RuntimeError, ValueError, TypeError, NotImplementedError):
                # such as a layer that torch cannot vectorize, or a model that asks for a value
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
