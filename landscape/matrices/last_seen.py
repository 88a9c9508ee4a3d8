"""Recognizes weights and data that have not changed since the last product, without reading their values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from landscape.data.batches import tensors_in
from landscape.data.changed_data import changes_of
from landscape.data.reading import Chunks
from landscape.data.samples import Held


@dataclass(frozen=True)
class Seen:
    """The weights and the data of a product.

    Attributes:
        theta: the tensor of the weights.
        changes: how often torch had changed this tensor in place.
        data: how often torch had changed each tensor of the data.
    """

    theta: Tensor
    changes: int
    data: list[int]

    @classmethod
    def now(cls, theta: Tensor, chunks: Chunks) -> Seen:
        """The weights and the data as they are. A stream is read anew for each product, and counts as unchanged."""
        data = tensors_in(chunks.blocks) if isinstance(chunks, Held) else []
        return cls(theta, changes_of(theta), [changes_of(tensor) for tensor in data])

    def is_same(self, other: Seen) -> bool:
        """Whether both are the same tensors with the same values."""
        return self.theta is other.theta and (self.changes, self.data) == (other.changes, other.data)
