"""The memory that an Objective may keep between products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from landscape.ranks import ALONE, Ranks


class Releasable(Protocol):
    """An object that keeps memory and can free it."""

    def release(self) -> None:
        """Frees the memory."""


R = TypeVar("R", bound=Releasable)


@dataclass(eq=False)
class Memory:
    """The objects that keep memory for further products.

    Attributes:
        budget: bytes that may be kept.
        parameters: number of weights of this rank.
        vector: bytes of a vector as long as the weights, in float32 at least.
        ranks: the processes that measure together.
        used: bytes that are kept now.
        later: bytes that a call needs after what it does now; see `before`.
    """

    budget: int
    parameters: int
    vector: int
    ranks: Ranks = ALONE
    used: int = 0
    later: int = 0
    _shared: dict[type, Any] = field(default_factory=dict)

    def empty(self) -> Memory:
        """The same budget, of which nothing is used."""
        return Memory(self.budget, self.parameters, self.vector, self.ranks)

    def __deepcopy__(self, known: dict[int, Any]) -> Memory:
        """The memory of a copied Objective, in which nothing is kept: what is kept belongs to the one memory."""
        return self.empty()

    def __reduce__(self) -> tuple[type[Memory], tuple[Any, ...]]:
        """A pickled memory is empty too."""
        return Memory, (self.budget, self.parameters, self.vector, self.ranks)

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

    def has_room_for_sums_of(self, parameters: int) -> bool:
        """Whether sums over the chunks may be kept in float64 and added from copies: in an eighth of the budget."""
        return 8 * parameters <= self.budget // 8

    def check_room(self, vectors: int, what: str, *, in_float64: bool = False) -> None:
        """Checks that vectors as long as the weights fit into the budget, beside the weights themselves.

        Args:
            vectors: as many as are held at a time.
            what: name of the computation, for the error message.
            in_float64: whether these vectors are in float64.

        Raises:
            ValueError: they do not fit. The message says how many bytes are needed.
        """
        # the parts of a sharded model differ in size, and ranks that go on would wait for those that raised
        needed, whole = map(max, zip(*self.ranks.gathered(self._bytes_of(vectors, in_float64)), strict=True))
        if whole > self.budget:
            precision = " in float64" if in_float64 and 8 * self.parameters > self.vector else ""
            more = f", and what follows {_in_words(whole)}" if whole > needed else ""
            raise ValueError(
                f"memory_budget: {what} needs {vectors} vectors{precision} as long as the weights and the weights "
                f"themselves, {_in_words(needed)}{more}; the budget is {_in_words(self.budget)}; make the Objective "
                f"with memory_budget={whole} or more"
            )

    def _bytes_of(self, vectors: int, in_float64: bool) -> tuple[int, int]:
        """Bytes of vectors and the weights, and the bytes that the whole call needs."""
        size = max(self.vector, 8 * self.parameters) if in_float64 else self.vector
        needed = vectors * size + self.vector
        return needed, max(needed, self.later)

    @contextmanager
    def before(self, vectors: int, *, in_float64: bool = False) -> Iterator[None]:
        """Within, a refusal also counts what the same call needs afterward, so that it need not refuse twice.

        Args:
            vectors: as many as are held at a time afterward.
            in_float64: whether these vectors are in float64.
        """
        former = self.later
        self.later = self._bytes_of(vectors, in_float64)[1]
        try:
            yield
        finally:
            self.later = former

    @contextmanager
    def room_for_vectors(self, most: int, least: int, what: str) -> Iterator[int]:
        """How many vectors as long as the weights fit on every rank, from `least` to `most`; within, they are kept.

        What is kept for products gives way to `least` of them.

        Args:
            most: as many as are of use.
            least: as many as are needed.
            what: name of the computation, for the error message.

        Raises:
            ValueError: `least` vectors, and the weights themselves, do not fit into the budget.
        """
        self.check_room(least, what)
        if self.used + (least + 1) * self.vector > self.budget:
            self.release()
        fitting = (self.budget - self.used) // self.vector - 1
        count = min(self.ranks.gathered(max(least, min(most, fitting))))
        nbytes = count * self.vector
        self.used += nbytes
        try:
            yield count
        finally:
            self.used -= nbytes


def _in_words(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GiB" if nbytes >= 2**27 else f"{nbytes / 2**20:.3g} MiB"
