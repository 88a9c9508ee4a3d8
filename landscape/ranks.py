"""The processes (ranks) that measure together: all sums over samples and over the entries of vectors go through here.

Each rank has its own samples. A model either lies whole on each rank, or is sharded by FSDP2: then each rank holds a
part of each vector as long as the weights, and an inner product is a sum over the ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from landscape.seeds import generator_for

T = TypeVar("T")

SETTLED = "_all_ranks_know_of_it"
"""Attribute of an error that no other rank waits for."""


def agree(group: dist.ProcessGroup | None, device: torch.device, error: Exception | None = None) -> None:
    """Goes on if no rank has failed, which costs one sum of one number over the ranks; causes follow only a failure.

    Args:
        group: by which the ranks communicate; None for one process.
        device: on which they do.
        error: why this rank cannot go on.

    Raises:
        Exception: this rank's own error.
        RuntimeError: another rank failed; the message says which, and why.
    """
    if group is not None and not is_settled(error):
        failures = torch.tensor(int(error is not None), device=device)
        dist.all_reduce(failures, group=group)
        if failures.item():
            raise _settled(error, group)
    if error is not None:
        raise error


def is_settled(error: Exception | None) -> bool:
    """Whether all ranks know of an error."""
    return hasattr(error, SETTLED)


def _settled(error: Exception | None, group: dist.ProcessGroup) -> Exception:
    """The error of this rank, or of the first one that failed."""
    causes: list[str | None] = [None] * dist.get_world_size(group)
    dist.all_gather_object(causes, None if error is None else f"{type(error).__name__}: {error}", group=group)
    failures = [
        RuntimeError(f"rank {rank} failed, so that the sum over the ranks is not there: {cause}")
        for rank, cause in enumerate(causes)
        if cause is not None
    ]
    found = failures[0] if error is None else error
    setattr(found, SETTLED, True)
    return found


@dataclass(frozen=True)
class Ranks:
    """This process among those that measure together.

    Attributes:
        group: by which they communicate; None for one process.
        entries: how many entries of a vector this rank holds; None: all of them.
        device: on which they communicate.
    """

    group: dist.ProcessGroup | None = None
    entries: int | None = None
    device: torch.device = torch.device("cpu")

    @property
    def share_vectors(self) -> bool:
        """Whether each rank holds a part of each vector."""
        return self.entries is not None

    @property
    def count(self) -> int:
        """The number of ranks."""
        return 1 if self.group is None else dist.get_world_size(self.group)

    @property
    def place(self) -> int:
        """The number of this rank, from 0."""
        return 0 if self.group is None else dist.get_rank(self.group)

    def with_entries(self, own: int) -> tuple[Ranks, int]:
        """The ranks for vectors of which this one holds `own` entries, and the length of the whole vectors."""
        if not self.share_vectors:
            return self, own
        return replace(self, entries=own), sum(self.gathered(own))

    def entries_of(self, dimension: int) -> int:
        """How many entries of a vector of the whole `dimension` this rank holds."""
        return dimension if self.entries is None else self.entries

    def over_samples(self, total: Tensor) -> Tensor:
        """The sum over all ranks, in place, of what each computed from its own samples."""
        if self.group is not None:
            dist.all_reduce(total, group=self.group)
        return total

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all ranks of what each computed from the same samples."""
        return value if self.group is None else self.over_samples(value) / self.count

    def vector_over_samples(self, vector: Tensor) -> Tensor:
        """The same for vectors as long as the weights. Derivatives in parts of the weights are sums already."""
        return vector if self.share_vectors else self.over_samples(vector)

    def over_entries(self, total: Tensor) -> Tensor:
        """The sum over all ranks, in place, of what each computed from its part of vectors, such as inner products."""
        return self.over_samples(total) if self.share_vectors else total

    def gathered(self, value: T) -> list[T]:
        """The values of all ranks."""
        if self.group is None:
            return [value]
        found: list[T] = [value] * self.count
        dist.all_gather_object(found, value, group=self.group)
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block at whose end the ranks agree: if one rank fails in it, no other goes on to wait for it.

        The ranks communicate in the block only under FSDP2, where they agree before each communication.

        Raises:
            RuntimeError: another rank failed; the message says why.
        """
        try:
            yield
        except Exception as error:  # any exception would leave the others waiting
            agree(self.group, self.device, error)
        else:
            agree(self.group, self.device)

    def generator(self, purpose: str, seed: int) -> torch.Generator:
        """A generator for the entries that this rank holds. The parts of a vector must not repeat each other."""
        part = (dist.get_rank(self.group),) if self.share_vectors else ()
        return generator_for(purpose, seed, part=part)


ALONE = Ranks()
"""One process, which holds everything."""
