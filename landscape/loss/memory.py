"""The memory that an Objective may keep between products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    def has_room_for_sums_of(self, parameters: int) -> bool:
        """Whether sums over the chunks may be kept in float64 and added from copies: in an eighth of the budget."""
        return 8 * parameters <= self.budget // 8

    def vectors(self, most: int, least: int, nbytes: int, what: str) -> int:
        """How many vectors fit, from `least` to `most`; what is kept for products gives way to `least` of them.

        Args:
            most: as many as are of use.
            least: as many as are needed.
            nbytes: of one vector.
            what: needs them, for the error.

        Raises:
            ValueError: `least` vectors do not fit into the budget.
        """
        if least * nbytes > self.budget:
            raise ValueError(
                f"memory_budget: {what} needs {least} vectors of the parameters' length, {_in_words(least * nbytes)}, "
                f"beside the weights; the budget is {_in_words(self.budget)}; make the Objective with "
                f"memory_budget={least * nbytes} or more"
            )
        if self.used + least * nbytes > self.budget:
            self.release()
        return max(least, min(most, (self.budget - self.used) // nbytes))

    @contextmanager
    def reserved(self, nbytes: int) -> Iterator[None]:
        """Within, so many bytes count as kept."""
        self.used += nbytes
        try:
            yield
        finally:
            self.used -= nbytes


def _in_words(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GiB" if nbytes >= 2**27 else f"{nbytes / 2**20:.3g} MiB"
