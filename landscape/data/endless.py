"""Notices data that never end: their first pass would fill the memory, or run for ever."""

from __future__ import annotations

import time
import warnings
from typing import Any

from torch.utils.data import DataLoader

from landscape.data.batches import rows_of, samples_in
from landscape.data.counts import Pair
from landscape.data.memory import memory_there_is
from landscape.data.samples import digest_of_pair

ROUNDS = 10
"""Data that were read whole so often are taken for endless. Oversampling reads data some times."""
MANY = 1000
"""Fewer batches are never taken for endless, because a few may be alike by chance."""
MOST_OF_MEMORY = 0.8
"""Share of the memory that batches of data of unknown length may take."""
SECONDS = 60.0
"""After this time in the first pass over data of unknown length a warning says how far the pass is."""

REMEDY = (
    "give data that end, such as [*itertools.islice(loader, 100)] for the first 100 batches, or a DataLoader with a "
    "sampler that takes each sample once; of data that do end give a list"
)


class EndlessData:
    """Watches the first pass over the data. Data that say their length, and keep to it, are taken as they are.

    Args:
        data: one batch, or an iterable of batches.
    """

    def __init__(self, data: Any) -> None:
        said = _length_of(data)
        self._says_its_length = said is not None
        self._items = _length_of(data.dataset) if said is None and isinstance(data, DataLoader) else said
        self._batches, self._repeats = 0, Repeats()
        self._started: float | None = time.monotonic()

    def check(self, pair: Pair, kept: int) -> None:
        """Checks one more batch.

        Args:
            pair: the batch.
            kept: bytes of the batches that are kept in memory by now.

        Raises:
            ValueError: the data begin anew again and again, hold many more batches than their dataset has items, or
                fill the memory.
        """
        self._batches = batches = self._batches + 1
        # each batch has one item of the dataset at least
        if self._items is not None and batches > max(MANY, ROUNDS * self._items):
            raise ValueError(
                f"data: {batches} batches were read of data of {self._items} items: the data seem never to end; "
                f"{REMEDY}"
            )
        if self._says_its_length:
            return
        # the first sample tells batches apart, and costs little
        self._repeats.add(digest_of_pair(pair if samples_in(pair) is None else rows_of(pair, slice(0, 1))))
        if batches >= MANY and self._repeats.rounds >= ROUNDS:
            raise ValueError(
                f"data: its {batches} batches are {self._repeats.period} ones again and again: the data seem never "
                f"to end; {REMEDY}"
            )
        if kept > MOST_OF_MEMORY * memory_there_is():
            raise ValueError(
                f"data: its batches, which are kept, take {kept / 2**30:.1f} GiB by now, most of the memory, and it "
                f"does not say its length; {REMEDY}; or let it be streamed, with keep='auto' and data that can be read "
                "several times, such as a DataLoader"
            )
        if self._started is not None and time.monotonic() - self._started > SECONDS:
            self._started = None
            warnings.warn(
                f"data: {batches} batches were read in {SECONDS:.0f} s of the first pass, and it does not say its "
                f"length; if it never ends, {REMEDY}",
                stacklevel=4,
            )


class Repeats:
    """A sequence of digests, and its smallest period.

    The border of a sequence is its longest proper beginning that is its end too. The rest of the length is the smallest
    period (Knuth, Morris and Pratt 1977).
    """

    def __init__(self) -> None:
        self._digests: list[int] = []
        self._borders: list[int] = []

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, digest: int) -> None:
        """Adds a digest, in constant time on average."""
        border = self._borders[-1] if self._borders else 0
        while border and self._digests[border] != digest:
            border = self._borders[border - 1]
        if self._digests and self._digests[border] == digest:
            border += 1
        self._digests.append(digest)
        self._borders.append(border)

    @property
    def period(self) -> int:
        """The number of digests after which they come again."""
        return len(self) - self._borders[-1]

    @property
    def rounds(self) -> int:
        """How often the first digests came, whole."""
        return len(self) // self.period


def _length_of(data: Any) -> int | None:
    try:
        return len(data)
    except (TypeError, NotImplementedError, AttributeError):
        return None
