"""The ranks that measure a model, and what they must have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from landscape.data.complex_numbers import as_real
from landscape.data.reading import Chunks
from landscape.data.samples import Cut, Held, held
from landscape.guards.settings import Linearize
from landscape.guards.shares_of_ranks import warn_of_equal_shares
from landscape.guards.telling_samples import telling_samples
from landscape.model.fully_sharded import group_of, is_sharded
from landscape.model.weights import tensors_of
from landscape.ranks import Ranks


def ranks_that_measure(
    model: nn.Module, group: dist.ProcessGroup | None, regularizer: Any, linearize: Linearize
) -> Ranks:
    """The ranks of a process group, or those of a sharded model.

    Raises:
        ValueError: a sharded model with a group of its own, a regularizer, or traced products.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if not is_sharded(model):
        return Ranks(group, device=device)
    if group is not None:
        raise ValueError("process_group: a model under FSDP2 brings its own; leave it out")
    if regularizer is not None:
        raise ValueError(
            "regularizer: each rank has only a part of the weights under FSDP2, of which it cannot be computed; leave "
            "it out, and add its value and derivatives to the results"
        )
    if linearize is True:
        raise ValueError("linearize: products of a model under FSDP2 are not traced; leave it out")
    return Ranks(group_of(model), entries=0, device=device)


def check_that_ranks_fit(model: nn.Module, chunks: Chunks, ranks: Ranks) -> None:
    """Checks that all ranks hold the same buffers, and the same weights or parts of them, and take the same passes.

    Raises:
        ValueError: they do not.

    Warns:
        UserWarning: ranks hold the same samples.
    """
    if ranks.share_vectors:
        check_equal_passes(chunks, ranks)
    if ranks.group is not None:
        shared = dict(model.named_buffers()) if ranks.share_vectors else tensors_of(model)
        check_that_ranks_agree(shared, ranks.group)
    warn_of_equal_shares(chunks, ranks)


def check_equal_passes(chunks: Chunks, ranks: Ranks) -> None:
    """Checks that all ranks of a sharded model take the same passes, because the ranks wait for each other in each.

    Raises:
        ValueError: on all ranks, for a stream, unequal numbers of chunks, or a chunk in which no sample counts.
    """
    is_held = isinstance(chunks, Held)
    counted = [bool(chunk.weight) for chunk in chunks] if is_held else []
    found = ranks.gathered((is_held, len(counted), all(counted)))
    if not all(held for held, _, _ in found):
        raise ValueError("keep: the data of a model under FSDP2 are kept in memory; give keep='all'")
    if len({length for _, length, _ in found}) > 1:
        raise ValueError(
            f"data: the ranks have {' and '.join(str(length) for _, length, _ in found)} chunks, but all ranks of a "
            "model under FSDP2 must take the same passes; give each about as many samples, or a larger chunk_size"
        )
    if not all(counts for _, _, counts in found):
        raise ValueError(
            "data: on some rank no sample of a chunk counts, but all ranks of a model under FSDP2 must take the same "
            "passes; leave samples out whose targets are ignored, or give a larger chunk_size"
        )


def seen_by_all(chunks: Chunks, cut: Cut, ranks: Ranks) -> Chunks:
    """The samples that the first checks look at; under FSDP2 those of rank 0, so that all take the same passes."""
    if not ranks.share_vectors:
        return chunks
    return held([ranks.gathered(telling_samples(chunks.all_or_first(), cut.chunk_size))[0]], cut, 2**62)


def check_that_ranks_agree(tensors: Mapping[str, Tensor], process_group: dist.ProcessGroup) -> None:
    """Checks that all ranks hold the same parameters and buffers.

    Raises:
        ValueError: some differ; the message names them.
    """
    differing = []
    for name, tensor in tensors.items():
        # NaN is neither the least nor the largest number, and equals no number
        value = torch.nan_to_num(as_real(tensor).double(), nan=-1e300, posinf=math.inf, neginf=-math.inf)
        extremes = torch.stack([value, -value])
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=process_group)
        if not torch.equal(extremes[0], -extremes[1]):
            differing.append(name)
    if differing:
        raise ValueError(
            f"process_group: the ranks hold different models, in {', '.join(differing)}; broadcast parameters and "
            "buffers first (torch.distributed.broadcast): DistributedDataParallel leaves each rank its own buffers "
            "after its last step"
        )
