"""Notices data that were changed in place after an Objective was made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from landscape.data.batches import tensors_in
from landscape.data.counts import Pair

LOOKED_AT = 4096
"""Entries of a tensor that are looked at, because torch counts its own changes alone."""


class ChangedDataError(ValueError):
    """The data are other ones than when the Objective was made, so that the numbers would be of two losses."""


class Unchanged:
    """Data that are held by reference, and must stay as they are. They are recognized without reading them whole.

    Torch counts its own changes in this process. Those of others in its memory are seen by `LOOKED_AT` entries: of
    NumPy, which may get it at any time (`tensor.numpy()`), and of other processes (`share_memory_()`, mapped files).

    Args:
        parts: pairs of inputs and targets, as they are stored.
    """

    def __init__(self, parts: Sequence[Pair]) -> None:
        self._tensors = tensors_in(list(parts))
        self._begin()

    def check(self) -> None:
        """Checks that none of the data were changed, or of the tensors that share memory with them.

        Raises:
            ChangedDataError: it has.
        """
        if self._changes_now() != self._changes or any(map(_Entries.has_changed, self._entries)):
            raise ChangedDataError(
                "data: were changed in place after the Objective was made; make a new Objective of the changed data, "
                "or give clones of data that change later"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle is made of, whose tensors count their changes anew."""
        self.check()
        return {"tensors": self._tensors}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begins to count the changes of a copy."""
        self._tensors = state["tensors"]
        self._begin()

    def _begin(self) -> None:
        self._changes = self._changes_now()
        self._entries = [_Entries(tensor) for tensor in self._tensors if _is_in_memory(tensor)]

    def _changes_now(self) -> list[int]:
        return [changes_of(tensor) for tensor in self._tensors]


def changes_of(tensor: Tensor) -> int:
    """How often torch has changed the tensor in place. Torch counts no changes of tensors made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def _is_in_memory(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.is_cpu


class _Entries:
    """Some entries of a tensor, evenly spread, as they are at first."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = torch.atleast_1d(tensor.detach())
        count = self._tensor.numel()
        positions = torch.arange(0, count, max(1, count // LOOKED_AT), device="cpu")
        # by indices, because to flatten a tensor with permuted axes would copy all of it in each pass
        self._places = torch.unravel_index(positions, self._tensor.shape)
        self._at_first = self._now()

    def has_changed(self) -> bool:
        """Whether one of them is another one now."""
        return not torch.equal(self._now(), self._at_first)

    def _now(self) -> Tensor:
        # as bytes, in which NaN is itself
        return self._tensor[self._places].view(torch.uint8)
