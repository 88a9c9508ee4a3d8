"""The memory that an Objective may keep between products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar


class Releasable(Protocol):
    """Something that keeps memory and can give it back."""

    def release(self) -> None:
        """Gives back the memory."""


R = TypeVar("R", bound=Releasable)


@dataclass
class Memory:
    """What is kept for further products, by what keeps it.

    Attributes:
        budget: bytes that may be kept.
        used: bytes that are kept now.
    """

    budget: int
    used: int = 0
    _shared: dict[type, Any] = field(default_factory=dict)

    def shared(self, key: type, make: Callable[[], R]) -> R:
        """What is kept under a key, such as a matrix's class; made when first asked for.

        What is made must not hold the Objective. A cycle would keep its memory after the last use.
        """
        if key not in self._shared:
            self._shared[key] = make()
        found: R = self._shared[key]
        return found

    def release(self) -> None:
        """Gives back the memory."""
        for kept in self._shared.values():
            kept.release()
