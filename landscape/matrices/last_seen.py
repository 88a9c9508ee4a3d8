"""Recognizes weights that have not changed since the last product, without reading their values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from landscape.data.changed_data import changes_of


@dataclass(frozen=True)
class Seen:
    """The weights of a product.

    Attributes:
        theta: the tensor of the weights.
        changes: how often torch had changed this tensor in place.
    """

    theta: Tensor
    changes: int

    @classmethod
    def now(cls, theta: Tensor) -> Seen:
        """The weights as they are."""
        return cls(theta, changes_of(theta))

    def is_same(self, other: Seen) -> bool:
        """Whether both are the same tensor with the same values."""
        return self.theta is other.theta and self.changes == other.changes
