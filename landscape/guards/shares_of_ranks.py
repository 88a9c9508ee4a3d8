"""Warns where ranks do not measure their own shares of the data together: of equal shares, and of ranks left out."""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
from torch import Tensor, nn

from landscape.data.batches import dense_parts, tensors_in
from landscape.data.complex_numbers import as_real
from landscape.data.reading import Chunks
from landscape.data.samples import Held
from landscape.ranks import Ranks

ENTRIES = 16
"""Entries of each sample that tell most shares apart, so that few are read whole."""


def warn_of_ranks_left_out(model: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Warns of a model that ranks train together, but that one rank measures alone.

    Args:
        model: with its wrappers.
        group: the ranks that shall measure together.

    Warns:
        UserWarning: the model is under DistributedDataParallel with several ranks, and there is no group.
    """
    if group is not None or not dist.is_initialized():
        return
    parallel = [part for part in model.modules() if isinstance(part, nn.parallel.DistributedDataParallel)]
    if parallel and (ranks := dist.get_world_size(parallel[0].process_group)) > 1:
        warnings.warn(
            f"process_group: the model is under DistributedDataParallel with {ranks} ranks, and this rank measures its "
            "own data alone; give process_group=torch.distributed.group.WORLD on all ranks, or model.module where this "
            "rank's data are all",
            stacklevel=4,
        )


def warn_of_equal_shares(chunks: Chunks, ranks: Ranks) -> None:
    """Warns of ranks that hold the same samples, in any order. Partly equal shares are not noticed.

    Warns:
        UserWarning: each sample counts several times.
    """
    if ranks.count == 1:
        return
    with ranks.together():
        own = _summary(chunks)
    if len(set(ranks.gathered(own))) == ranks.count:
        return
    with ranks.together():
        whole = chunks.fingerprint
    found = ranks.gathered(whole)
    alike = [str(rank) for rank, each in enumerate(found) if each == max(found, key=found.count)]
    if len(alike) > 1:
        warnings.warn(
            f"data: the ranks {' and '.join(alike)} hold the same {chunks.samples} samples, each of which counts "
            f"{len(alike)} times; give each rank its own share, such as Subset(dataset, range(rank, len(dataset), "
            "ranks)), or leave process_group= out, so that each rank measures all by itself",
            stacklevel=6,
        )


def _summary(chunks: Chunks) -> tuple[int, int | str]:
    """What differs between most shares, and not between orders of the same samples."""
    if not isinstance(chunks, Held):
        return chunks.samples, chunks.fingerprint
    tensors = tensors_in(list(chunks.blocks))
    return chunks.samples, sum(_bytes_in(part) for tensor in tensors for part in dense_parts(tensor))


def _bytes_in(tensor: Tensor) -> int:
    """The sum of the bytes of some entries of each row."""
    rows = as_real(tensor.detach())
    rows = rows.flatten(1) if rows.ndim > 1 else rows.reshape(-1, 1)
    return int(rows[:, :: max(1, rows.shape[1] // ENTRIES)].contiguous().view(torch.uint8).sum())
