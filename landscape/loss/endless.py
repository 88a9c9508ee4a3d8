"""Notices data that never end: their first pass would fill the memory, or run for ever."""

from __future__ import annotations

import os
import time
import warnings
from typing import Any

from torch.utils.data import DataLoader

from landscape.loss.batches import rows_of, samples_in
from landscape.loss.counts import Pair
from landscape.loss.samples import digest_of_pair

FIRST = 4
"""Data begin anew where as many batches come again in their first order."""
MANY = 1000
"""So many batches need not differ to begin anew."""
MOST_ROUNDS = 3
"""Data that begin anew so often are taken for endless: some oversample by reading all twice."""
SECONDS = 60.0
"""After this time in the first pass over data of unknown length a warning says how far the pass is."""

REMEDY = (
    "give data that end, such as [*itertools.islice(loader, 100)] for the first 100 batches, or a DataLoader with a "
    "sampler that takes each sample once"
)


class EndlessData:
    """Watches the first pass over the data. Data that say their length are not watched.

    Args:
        data: one batch, or an iterable of batches.
    """

    def __init__(self, data: Any) -> None:
        self._is_watched = _length_of(data) is None
        self._first: list[int] = []
        self._last: list[int] = []
        self._batches = self._rounds = 0
        self._most_samples = _samples_of(data)
        self._samples = 0
        self._started: float | None = time.monotonic()

    def check(self, pair: Pair, kept: int) -> None:
        """Checks one more batch.

        Args:
            pair: the batch.
            kept: bytes of the batches that are kept in memory by now.

        Raises:
            ValueError: the data begin anew for the third time, hold many times the samples of their dataset, or fill
                the memory.
        """
        if not self._is_watched:
            return
        self._batches += 1
        self._samples += samples_in(pair) or 1
        self._note(pair)
        if self._rounds >= MOST_ROUNDS:
            raise ValueError(
                f"data: its first {FIRST} batches come again for the {MOST_ROUNDS}rd time, after {self._batches} "
                f"batches, so that it seems never to end; {REMEDY}"
            )
        if self._most_samples is not None and self._samples > (MOST_ROUNDS + 1) * self._most_samples:
            raise ValueError(
                f"data: {self._samples} samples were read of a dataset of {self._most_samples}, so that it seems never "
                f"to end; {REMEDY}"
            )
        if kept > _half_of_the_memory():
            raise ValueError(
                f"data: its batches, which are kept, take {kept / 2**30:.1f} GiB by now, half of the memory, and it "
                f"does not say its length; {REMEDY}; or let it be streamed: keep='auto', and give what begins anew at "
                "each iteration"
            )
        if self._started is not None and time.monotonic() - self._started > SECONDS:
            self._started = None
            warnings.warn(
                f"data: {self._batches} batches were read in {SECONDS:.0f} s of the first pass, and it does not say "
                f"its length; if it never ends, {REMEDY}",
                stacklevel=4,
            )

    def _note(self, pair: Pair) -> None:
        # the first sample tells batches apart, and costs little
        some = pair if samples_in(pair) is None else rows_of(pair, slice(0, 1))
        self._last = [*self._last, digest_of_pair(some)][-FIRST:]
        if len(self._first) < FIRST:
            self._first = list(self._last)
        elif self._last == self._first and (len(set(self._first)) == FIRST or self._batches > MANY):
            self._rounds += 1


def _samples_of(data: Any) -> int | None:
    """The samples of a DataLoader's dataset; None if it does not say."""
    return _length_of(data.dataset) if isinstance(data, DataLoader) else None


def _length_of(data: Any) -> int | None:
    try:
        return len(data)
    except (TypeError, NotImplementedError, AttributeError):
        return None


def _half_of_the_memory() -> float:
    """Half of the machine's memory in bytes; infinite where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    except (AttributeError, ValueError, OSError):
        return float("inf")
