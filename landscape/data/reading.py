"""Reads the caller's data: once and kept in memory, or again for each pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from landscape.data.batches import Batch, bytes_of, copied, rows_of, samples_in
from landscape.data.changed_data import ChangedDataError
from landscape.data.class_labels import LabelBounds
from landscape.data.counts import Pair
from landscape.data.endless import EndlessData
from landscape.data.failed_workers import END, read_by_workers
from landscape.data.first_pass import FirstPass
from landscape.data.loader_checks import (
    sampler_of,
    warn_of_augmentation,
    warn_of_drawn_samples,
    warn_of_samples_left_out,
    warn_of_shares,
)
from landscape.data.random_state import borrowed_generators
from landscape.data.repeated_samples import RepeatedByWorkers
from landscape.data.samples import Chunk, Cut, Held, check_that_something_counts, digest_of_pair, held

KEEP = ("all", "none", "auto")
"""The data are kept in memory, or read again for each pass, or kept if they fit into the memory budget."""

LOOKED_AT = 128
"""Number of samples of a stream that the checks look at."""

RANDOM = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@dataclass
class Source:
    """The caller's data as pairs.

    Args:
        data: one batch, or an iterable of batches.
        as_pair: batch -> (inputs, targets).
    """

    data: Any
    as_pair: Callable[[Batch], Pair]
    # each pass continues the random numbers of the last one, so that a random augmentation is noticed
    _random_state: Tensor = field(default_factory=torch.get_rng_state)

    @property
    def is_one_batch(self) -> bool:
        """Whether data are one batch: a tensor, a dict, or a tuple with a tensor in it. A tuple of batches has none."""
        data = self.data
        return isinstance(data, Tensor | Mapping) or (
            isinstance(data, tuple) and any(isinstance(part, Tensor) for part in data)
        )

    @property
    def is_shuffled(self) -> bool:
        """Whether a DataLoader draws the order of the samples."""
        sampler = sampler_of(self.data)
        return isinstance(sampler, RANDOM) or (isinstance(sampler, DistributedSampler) and sampler.shuffle)

    @property
    def can_be_read_again(self) -> bool:
        """Whether data can be read several times. A DataLoader can, and a generator cannot."""
        return not isinstance(self.data, Iterator)

    def __iter__(self) -> Iterator[Pair]:
        if self.is_one_batch:
            yield self.as_pair(self.data)
            return
        batches = read_by_workers(self.data)
        while True:
            # a DataLoader draws from the global random state, even without shuffling
            with self._own_random_numbers():
                batch = next(batches, END)
            if batch is END:
                return
            yield self.as_pair(batch)
            # not held while the next one is read
            del batch

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        with borrowed_generators():
            torch.set_rng_state(self._random_state)
            yield
            self._random_state = torch.get_rng_state()


class Streamed:
    """A data set that is read again for each pass. It must hold the same samples each time, in any order.

    Args:
        source: the batches; the first pass over them calls `note`.
        cut: cuts the batches into chunks.

    Attributes:
        samples: number of samples. A batch that cannot be cut counts as one.
        weight: sum of the chunks' weights.
        labels: the bounds of the labels.
        first_pass: what is done with the chunks in the first pass over them.
    """

    is_uniform = False

    def __init__(self, source: Source, cut: Cut) -> None:
        self._source = source
        self._cut = cut
        self._digest = 0
        self._first: Pair | None = None
        self._length = 0
        self.labels = LabelBounds(cut.counting.ignored)
        self.samples = 0
        self.weight = 0.0
        self.first_pass: FirstPass[Chunk] = FirstPass()

    def note(self, pair: Pair, digest: int | None = None) -> None:
        """Records a batch in the first pass, and its digest, which is computed if not given."""
        self._digest += digest_of_pair(pair) if digest is None else digest
        self.labels.note(pair)
        for chunk in self._cut(pair):
            self._length += 1
            self.samples += chunk.samples
            self.weight += chunk.weight
        if self._first is None and samples_in(pair) != 0:
            self._first = _some_of(pair)

    def note_all(self, batches: list[Pair], digests: list[int | None]) -> None:
        """Records batches, and their digests where they are known, and empties both lists."""
        for pair, digest in zip(batches, digests, strict=True):
            self.note(pair, digest)
        batches.clear()
        digests.clear()

    @property
    def fingerprint(self) -> str:
        """A digest that is equal for streams of the same samples, in any order."""
        return f"{self._digest:x}"

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Chunk]:
        return self.first_pass.over(self._read())

    def _read(self) -> Iterator[Chunk]:
        digest = 0
        for pair in self._source:
            digest += digest_of_pair(pair)
            yield from self._cut(pair)
        if digest != self._digest:
            raise ChangedDataError(
                "data: this pass read other samples than the first one, so that the numbers would be of no one loss; "
                "turn off random augmentation and random sampling (a shuffled order is fine), or keep='all', which "
                "reads the data once"
            )

    def first(self, count: int) -> Pair:
        """Some of the first samples: at most 128, and at most `count` if the first batch can be cut."""
        assert self._first is not None
        return self._first if samples_in(self._first) is None else rows_of(self._first, slice(0, count))

    def all_or_first(self) -> Pair:
        """The samples that checks may look at: some of the first."""
        return self.first(LOOKED_AT)

    def rows(self, _: slice | Tensor) -> tuple[Pair, ...]:
        """Raises an error, because samples of a stream cannot be picked by index.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "samples: these data are streamed, so that single samples cannot be picked; make an Objective of a loader "
            "of the samples wanted, or keep='all'"
        )


Chunks = Held | Streamed
"""The data of an Objective, as chunks that can be iterated again and again."""


def read(source: Source, cut: Cut, *, keep: str, budget: int, with_others: bool = False) -> Chunks:
    """The data in memory, or a stream of them.

    Args:
        source: the batches.
        cut: cuts the batches into chunks.
        keep: `"all"` keeps the data, `"none"` streams them, and `"auto"` keeps them if they fit into `budget` bytes,
            are in memory already, or can be read only once.
        budget: number of bytes.
        with_others: whether other ranks measure their shares of the data too.

    Raises:
        ValueError: there are no samples, the data seem never to end, or data that can be read only once shall be
            streamed.
    """
    if keep not in KEEP:
        raise ValueError(f"keep: must be one of {', '.join(KEEP)}, got {keep!r}")
    if keep == "none" and not source.can_be_read_again:
        raise ValueError(
            f"keep: {type(source.data).__name__} can be read only once; give what begins anew at each iteration, such "
            "as a DataLoader, or keep='all'"
        )
    warn_of_samples_left_out(source.data)
    warn_of_drawn_samples(source.data)
    warn_of_shares(source.data, with_others)
    in_memory = source.is_one_batch or isinstance(source.data, list | tuple)
    may_stream = keep == "none" or (keep == "auto" and source.can_be_read_again and not in_memory)
    most = 0 if keep == "none" else budget
    batches: list[Pair] = []
    digests: list[int | None] = []
    size = 0
    stream, endless = Streamed(source, cut), EndlessData(source.data)
    repeats = RepeatedByWorkers(source.data)
    for pair in source:
        # a loader may fill the same memory again with its next batch, as one that reads ahead into buffers does
        batches.append(pair if in_memory else _own(pair))
        size += bytes_of(pair)
        endless.check(pair, 0 if may_stream else size)
        digests.append(repeats.note(pair))
        if may_stream and size > most:
            stream.note_all(batches, digests)
        del pair
    repeats.warn()
    if not stream.samples:
        warn_of_augmentation(source.data)
        return held(batches, cut, budget)
    stream.note_all(batches, digests)
    check_that_something_counts(stream.weight)
    return stream


def _some_of(pair: Pair) -> Pair:
    """A copy of a few samples that holds no more memory than these samples need."""
    return _own(pair if samples_in(pair) is None else rows_of(pair, slice(0, LOOKED_AT)))


def _own(pair: Pair) -> Pair:
    """A copy of a batch. One that is both inputs and targets is copied once."""
    inputs, targets = pair
    own = copied(inputs)
    return own, own if targets is inputs else copied(targets)
