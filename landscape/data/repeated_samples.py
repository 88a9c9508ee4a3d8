"""Warns of a stream that several workers read whole, so that each sample comes as often as there are workers."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from heapq import nsmallest
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from landscape.data.batches import digests_of
from landscape.data.counts import Pair

COUNTED = 1024
"""Samples that are counted: those of the smallest digests, which are the same ones whenever they come."""
FEWEST = 8
"""Fewer samples tell nothing: each of them may come several times by chance."""


class RepeatedByWorkers:
    """Watches the first pass over a DataLoader of an `IterableDataset` with several workers. Other data cost nothing.

    Args:
        data: one batch, or an iterable of batches.
    """

    def __init__(self, data: Any) -> None:
        is_stream = isinstance(data, DataLoader) and isinstance(data.dataset, IterableDataset)
        self._workers = data.num_workers if is_stream else 0
        self._counts: Counter[int] = Counter()

    def note(self, pair: Pair) -> int | None:
        """Counts the samples of one more batch. Returns its `digest_of_pair`, or None where nothing is counted."""
        if self._workers < 2:
            return None
        inputs, targets = pair
        digests = digests_of(inputs if inputs is targets else pair)
        self._counts.update(digests)
        if len(self._counts) > 2 * COUNTED:
            # what is left out once is never among the smallest later, so that each one kept was counted from the start
            self._counts = Counter({one: self._counts[one] for one in nsmallest(COUNTED, self._counts)})
        return sum(digests)

    def warn(self) -> None:
        """Warns at the end of the pass.

        Warns:
            UserWarning: each sample came as often as there are workers, or as a group of them.
        """
        times = math.gcd(self._workers, *self._counts.values())
        if len(self._counts) >= FEWEST and times > 1:
            warnings.warn(
                f"data: each sample comes {times} times, as an IterableDataset that is read whole by each of "
                f"{self._workers} workers gives it, and counts as {times} samples; let each worker read its own share, "
                "by torch.utils.data.get_worker_info(), or give num_workers=0",
                stacklevel=5,
            )
