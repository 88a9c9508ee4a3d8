"""What is done with each chunk of the data when a pass comes to it for the first time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Chunk = TypeVar("Chunk")


@dataclass(eq=False)
class FirstPass(Generic[Chunk]):
    """The first pass over the chunks of some data.

    Attributes:
        look: (number of the chunk, chunk) -> None; may raise. None: nothing is done.
        seen: chunks that were looked at.
    """

    look: Callable[[int, Chunk], None] | None = None
    seen: int = 0

    def over(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The chunks; each is looked at before a pass gets it for the first time."""
        for index, chunk in enumerate(chunks):
            if index >= self.seen and self.look is not None:
                self.look(index, chunk)
                self.seen = index + 1
            yield chunk

    def is_done(self, chunks: int) -> bool:
        """Whether all of so many chunks were looked at, or nothing is done with them."""
        return self.look is None or self.seen >= chunks
