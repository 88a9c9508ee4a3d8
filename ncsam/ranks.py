"""The processes (ranks) that train one model together under DistributedDataParallel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves, tree_map

from ncsam.datasets import Samples
from ncsam.methods.agreement import ALONE, Agreement
from ncsam.methods.batches import piece_sizes
from ncsam.tensor_bytes import tensor_bytes

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the processes that train together. Without DistributedDataParallel there is only one.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        group: the process group by which they communicate; None for one process.
        agreement: the points at which they agree to go on.
    """

    rank: int = 0
    count: int = 1
    group: Any = None
    agreement: Agreement = ALONE

    @classmethod
    def of(cls, model: nn.Module) -> Ranks:
        """The ranks that a model was wrapped for.

        Raises:
            ValueError: the wrapper is hidden in a compiled model.
        """
        if isinstance(getattr(model, "_orig_mod", None), DistributedDataParallel):
            raise ValueError(
                "model: compile first and wrap then, DistributedDataParallel(torch.compile(model)); the other way "
                "round the ranks cannot be found"
            )
        if not isinstance(model, DistributedDataParallel):
            return cls()
        group = model.process_group
        return cls(dist.get_rank(group), dist.get_world_size(group), group, Agreement.of(model))

    def gathered(self, value: T) -> list[T]:
        """The values of all ranks, in the order of the ranks. Tensors are copied to the CPU.

        Raises:
            RuntimeError: another rank failed.
        """
        if self.count == 1:
            return [value]
        self.agreement.agree()
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, on_cpu(value), group=self.group)
        return found

    def from_first(self, value: T) -> T:
        """The value of rank 0."""
        return value if self.count == 1 else self.gathered(value if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def on_first(self, function: Callable[[], T]) -> T:
        """The result of a function that is called on rank 0 alone.

        Raises:
            RuntimeError: on the other ranks, if the function raises on rank 0.
        """
        with self.together():
            value = function() if self.rank == 0 else None
        return self.from_first(value)  # type: ignore[return-value]

    def together(self) -> AbstractContextManager[None]:
        """A context in which an exception on one rank ends the block on all ranks, so that no rank waits in vain.

        Raises:
            RuntimeError: another rank raised something.
        """
        return self.agreement.together()

    def read_together(self, batches: Iterator[T]) -> Iterator[T]:
        """The batches that each rank reads, equally many. If one rank cannot read its next batch, all end.

        Raises:
            RuntimeError: another rank raised something.
        """
        nothing = object()
        while True:
            with self.together():
                batch = next(batches, nothing)
            if batch is nothing:
                return
            yield batch  # type: ignore[misc]

    def share_buffers(self, networks: list[nn.Module]) -> None:
        """Gives all ranks the buffers of rank 0, such as BatchNorm's statistics, as DistributedDataParallel does.

        Networks may share buffers, as a model and a wrapper of it do.
        """
        if self.count == 1:
            return
        buffers = list({id(buffer): buffer for network in networks for buffer in network.buffers()}.values())
        for own, first in zip(buffers, self.from_first(buffers), strict=True):
            own.copy_(first)


@dataclass(frozen=True)
class Share:
    """Which samples a rank reads.

    Attributes:
        ranks: the processes.
        is_dealt: every rank was given the same samples, which are dealt out; else each rank has its own.
    """

    ranks: Ranks
    is_dealt: bool

    @classmethod
    def of(cls, ranks: Ranks, samples: Samples, *labels: Tensor) -> Share:
        """Whether all ranks hold the same samples with the same labels."""
        if ranks.count == 1:
            return cls(ranks, True)
        with ranks.together():
            digest = hashlib.sha256(str(len(samples)).encode())
            for leaf in [*labels, *tree_leaves(samples.some(8))]:
                if isinstance(leaf, Tensor):
                    digest.update(tensor_bytes(leaf))
        return cls(ranks, len(set(ranks.gathered(digest.hexdigest()))) == 1)

    def own(self, order: Tensor) -> Tensor:
        """This rank's part of all samples in some order (n,)."""
        return order[self.ranks.rank :: self.ranks.count] if self.is_dealt else order

    def pieces(self, order: Tensor, batch_size: int) -> tuple[Tensor, ...]:
        """The batches of an epoch, equally many on all ranks; the last one may be larger by one."""
        own = self.own(order)
        least = len(order) // self.ranks.count if self.is_dealt else len(order)
        sizes = piece_sizes(least, batch_size)
        sizes[-1] += len(own) - least
        return own.split(sizes)

    def check_steps(self, samples: int, batch_size: int) -> None:
        """Raises ValueError unless each rank has a batch in each step of an epoch."""
        ranks = self.ranks
        if self.is_dealt and samples < ranks.count:
            raise ValueError(f"train: {samples} samples for {ranks.count} ranks")
        steps = ranks.gathered(len(self.pieces(torch.arange(samples, device="cpu"), batch_size)))
        if len(set(steps)) > 1:
            raise ValueError(
                f"train: the ranks have {_listed(steps)} steps an epoch, of {_listed(ranks.gathered(samples))} "
                "samples; give every rank all samples, which are then dealt out, or shares of equally many"
            )

    def whole(self, own: Tensor, total: int) -> Tensor:
        """The rows of all ranks' samples, in the samples' order, from each rank's rows of its `own` samples."""
        if self.ranks.count == 1:
            return own
        parts = self.ranks.gathered(own)
        if not self.is_dealt:
            return torch.cat(parts).to(own.device)
        rows = parts[0].new_empty(total, *own.shape[1:])
        for rank, part in enumerate(parts):
            rows[rank :: self.ranks.count] = part
        return rows.to(own.device)

    def merge(self, loss_fn: object, order: Tensor) -> None:
        """Joins the loss's memories of samples: that of a sample is taken from the rank that saw it in this epoch."""
        if self.ranks.count == 1 or not self.is_dealt or not isinstance(loss_fn, nn.Module):
            return
        for memory in loss_fn.buffers():
            if memory.ndim and len(memory) == len(order):
                place = order.to(memory.device)
                memory[place] = self.whole(memory[self.own(place)], len(order))


def on_cpu(value: Any) -> Any:
    """The same value with all tensors on the CPU."""
    return tree_map(lambda leaf: leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf, value)


def _listed(numbers: list[int]) -> str:
    return " and ".join(map(str, numbers))
