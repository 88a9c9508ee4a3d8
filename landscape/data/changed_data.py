"""Notices data that torch changed in place after their samples were counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from landscape.data.batches import tensors_in
from landscape.data.counts import Counting, Pair


@dataclass
class CountedData:
    """What parts of the data counted for when they were read.

    Attributes:
        parts: pairs of inputs and targets, as they are stored.
        counting: the weights of batches.
    """

    parts: Sequence[Pair]
    counting: Counting
    _tensors: list[Tensor] = field(init=False, repr=False)
    _changes: list[int] = field(init=False, repr=False)
    _counts: list[tuple[float, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._tensors = tensors_in(list(self.parts))
        self._changes, self._counts = self._changes_now(), self._counts_now()

    def check(self) -> None:
        """Checks that each part counts for what it did. Unchanged data are recognized without reading them.

        Raises:
            ValueError: a part counts for more or less, so that the mean would be divided by a wrong number.
        """
        changes = self._changes_now()
        if changes == self._changes:
            return
        if self._counts_now() != self._counts:
            raise ValueError(
                "data: were changed in place, and count for another number of samples, labels or weights than when the "
                "Objective was made; make a new Objective of the changed data"
            )
        self._changes = changes

    def _changes_now(self) -> list[int]:
        return [changes_of(tensor) for tensor in self._tensors]

    def _counts_now(self) -> list[tuple[float, int]]:
        return [(self.counting.weight_of(part), self.counting.labeled(part)) for part in self.parts]


def changes_of(tensor: Tensor) -> int:
    """How often torch has changed the tensor in place. Torch counts no changes of tensors made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version
