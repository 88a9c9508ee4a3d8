"""The memory that an Objective may keep between products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar


class Releasable(Protocol):
    """An object that keeps memory and can free it."""

    def release(self) -> None:
        """Frees the memory."""


R = TypeVar("R", bound=Releasable)


@dataclass
class Memory:
    """The objects that keep memory for further products.

    Attributes:
        budget: number of bytes that may be kept.
        used: number of bytes that are kept now.
    """

    budget: int
    used: int = 0
    _shared: dict[type, Any] = field(default_factory=dict)

    def shared(self, key: type, make: Callable[[], R]) -> R:
        """The object under a key, such as the class of a matrix. It is made when it is first asked for.

        The object must not hold the Objective, because such a cycle would keep the memory after the last use.
        """
        if key not in self._shared:
            self._shared[key] = make()
        found: R = self._shared[key]
        return found

    def release(self) -> None:
        """Frees the memory."""
        for kept in self._shared.values():
            kept.release()
