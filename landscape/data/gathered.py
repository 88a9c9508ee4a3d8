"""Samples of all ranks on each rank, where a measure needs them together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.data.batches import Batch, joined, mapped, rows_of
from landscape.ranks import Ranks


def gathered(batch: Batch, ranks: Ranks) -> Batch:
    """The batches of all ranks as one, the first rank's samples first. It lies on the CPU if there are several ranks.

    Args:
        batch: a batch that can be cut, with as many tensors on each rank.
        ranks: the processes that measure together.
    """
    if ranks.group is None:
        return batch
    return joined(ranks.gathered(mapped(batch, lambda tensor: tensor.cpu())))


@dataclass(frozen=True)
class SharedSamples:
    """The samples of all ranks, with one numbering: the first rank's come first.

    Attributes:
        own: the samples of this rank.
        shares: the number of samples of each rank.
        ranks: the processes that measure together.
    """

    own: Batch
    shares: list[int]
    ranks: Ranks

    def __getitem__(self, rows: Tensor) -> Batch:
        """The samples with these numbers (m,), in this order, on each rank. All ranks must ask for the same."""
        ends = torch.tensor(self.shares, device="cpu").cumsum(0)
        owners = torch.bucketize(rows, ends, right=True)
        mine = (
            rows[owners == self.ranks.place] - (ends - ends.diff(prepend=ends.new_zeros(1)))[self.ranks.place]
        )
        # the samples arrive ordered by their owners
        places = owners.argsort(stable=True).argsort()
        return rows_of(gathered(rows_of(self.own, mine), self.ranks), places)
