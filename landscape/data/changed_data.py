"""Notices data that torch changed in place after an Objective was made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from landscape.data.batches import tensors_in
from landscape.data.counts import Pair


class ChangedDataError(ValueError):
    """The data are other ones than when the Objective was made, so that the numbers would be of two losses."""


class Unchanged:
    """Data that are held by reference, and must stay as they are. They are recognized without reading them.

    Args:
        parts: pairs of inputs and targets, as they are stored.
    """

    def __init__(self, parts: Sequence[Pair]) -> None:
        self._tensors = tensors_in(list(parts))
        self._changes = self._changes_now()

    def check(self) -> None:
        """Checks that torch has changed none of the data, or of the tensors that share memory with them.

        Raises:
            ChangedDataError: it has.
        """
        if self._changes_now() != self._changes:
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
        self._changes = self._changes_now()

    def _changes_now(self) -> list[int]:
        return [changes_of(tensor) for tensor in self._tensors]


def changes_of(tensor: Tensor) -> int:
    """How often torch has changed the tensor in place. Torch counts no changes of tensors made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version
