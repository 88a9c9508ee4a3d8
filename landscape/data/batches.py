"""Batches of any form: moves, casts, cuts and joins their tensors, and compares batches by content."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from landscape.data.allocator import give_back_freed_memory
from landscape.data.complex_numbers import as_real, in_dtype
from landscape.data.tensor_copies import TensorsCopiedBy

Batch = Any
"""A batch: tensors in tuples, lists, dicts and any other objects."""


def mapped(batch: Batch, transform: Callable[[Tensor], Any]) -> Batch:
    """A copy of the batch with `transform(tensor)` in place of each of its tensors.

    Args:
        batch: of any form that can be copied, such as a graph of torch_geometric or a `PackedSequence`.
        transform: tensor -> tensor.

    Raises:
        TypeError: the batch cannot be copied.
    """
    if isinstance(batch, Tensor):
        return transform(batch)
    if _is_tree_of_tensors(batch):
        return tree_map(transform, batch)
    try:
        with TensorsCopiedBy(transform):
            return copy.deepcopy(batch)
    except (KeyError, TypeError, NotImplementedError) as error:
        raise TypeError(
            f"data: a batch of type {type(batch).__name__} cannot be copied ({type(error).__name__}: {error}); give "
            "tensors in dicts, tuples or lists (a class whose __getattr__ raises a KeyError breaks copy.deepcopy: let "
            "it raise an AttributeError)"
        ) from error


def in_precision(batch: Batch, dtype: torch.dtype) -> Batch:
    """The batch, detached, with its floating-point tensors in `dtype` and its complex ones in that precision."""

    def cast(tensor: Tensor) -> Tensor:
        if tensor.is_nested:
            raise ValueError(
                "data: a batch holds a nested tensor, which torch does not cut into samples; give padded tensors and a "
                "mask, or a list of tensors and forward="
            )
        if tensor.is_meta:
            raise ValueError(
                "data: a batch holds a tensor on the meta device, which has no values; load the data"
            )
        return in_dtype(tensor.detach(), dtype)

    return mapped(batch, cast)


def copied_to(batch: Batch, device: torch.device) -> Batch:
    """A copy on the device, because a model may change its inputs."""
    return mapped(batch, lambda tensor: tensor.to(device, copy=True))


def copied(batch: Batch) -> Batch:
    """A copy where the batch is, because a loss may change its targets."""
    return mapped(batch, lambda tensor: tensor.clone())


def tensors_in(batch: Batch) -> list[Tensor]:
    """The tensors of a batch."""
    if _is_tree_of_tensors(batch):
        return tree_leaves(batch)
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    mapped(batch, note)
    return found


def bytes_of(batch: Batch) -> int:
    """The number of bytes of the tensors of a batch."""
    return sum(part.nbytes for tensor in tensors_in(batch) for part in dense_parts(tensor))


def dense_parts(tensor: Tensor) -> list[Tensor]:
    """A tensor as dense ones: itself, or the indices and values that a sparse one consists of."""
    if tensor.layout == torch.sparse_coo:
        whole = tensor.coalesce()
        return [whole.indices(), whole.values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor]


def _is_tree_of_tensors(batch: Batch) -> bool:
    """Whether torch finds all that a batch holds, which is quicker than a copy."""
    return all(isinstance(leaf, Tensor) for leaf in tree_leaves(batch))


def samples_in(batch: Batch) -> int | None:
    """The number of samples of a batch that can be cut: the length of all its tensors. None for other batches."""
    leaves, _ = tree_flatten(batch)
    if not leaves or not all(isinstance(leaf, Tensor) and _has_rows(leaf) for leaf in leaves):
        return None
    lengths = {len(leaf) for leaf in leaves}
    return lengths.pop() if len(lengths) == 1 else None


def _has_rows(tensor: Tensor) -> bool:
    # sparse tensors, such as the neighbors of a graph's nodes, are not cut
    return tensor.ndim > 0 and tensor.layout == torch.strided


def rows_of(batch: Batch, rows: slice | Tensor) -> Batch:
    """Some samples of a batch that can be cut."""
    return tree_map(lambda leaf: leaf[rows.to(leaf.device) if isinstance(rows, Tensor) else rows], batch)


def form_of(batch: Batch) -> Any:
    """A key that is equal for batches that differ only in values and in the number of samples."""
    leaves, spec = tree_flatten(batch)
    return spec, [(tuple(leaf.shape[1:]), leaf.dtype, leaf.device) for leaf in leaves]


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch with the samples of several batches of one form."""
    if len(batches) == 1:
        return batches[0]
    return tree_map(lambda *leaves: torch.cat(leaves), *batches)


TIMES_GIVEN_BACK = 16
"""While batches are joined, glibc is told this many times to give back their memory."""


def joined_and_freed(batches: list[Batch]) -> Batch:
    """The same, where each batch is freed as soon as it is copied, so that the samples are not held twice.

    Args:
        batches: at least one; the list is empty afterward.
    """
    if len(batches) == 1:
        return batches.pop()
    samples = end = sum(samples_in(batch) or 0 for batch in batches)
    whole = tree_map(lambda leaf: leaf.new_empty((samples, *leaf.shape[1:])), batches[0])
    largest = max(tree_leaves(whole), key=lambda leaf: leaf.nbytes)
    given_back = end
    while batches:
        batch = batches.pop()
        start = end - (samples_in(batch) or 0)
        tree_map(lambda part, leaf: part.copy_(leaf), rows_of(whole, slice(start, end)), batch)
        end = start
        if given_back - end > samples / TIMES_GIVEN_BACK:
            del batch
            give_back_freed_memory(largest)
            given_back = end
    return whole


def digest_of(batch: Batch) -> int:
    """A digest of the content of a batch in 128 bits. If the batch can be cut, the order of samples does not matter.

    The digest covers the tensors, and numbers, names and arrays beside them in tuples, lists and dicts.
    """
    return sum(digests_of(batch))


def digests_of(batch: Batch) -> list[int]:
    """A digest for each sample; one for a batch that cannot be cut."""
    count = samples_in(batch)
    if count is None:
        others = [repr(leaf).encode() for leaf in tree_leaves(batch) if isinstance(leaf, PLAIN)]
        arrays = [leaf.tobytes() for leaf in tree_leaves(batch) if isinstance(leaf, np.ndarray)]
        tensors = tensors_in(batch)
        shapes = [repr((tensor.shape, tensor.dtype)).encode() for tensor in tensors]
        contents = [content_of(part) for tensor in tensors for part in dense_parts(tensor)]
        return [_digest(*contents, *shapes, *others, *arrays)]
    leaves = [content_of(leaf) for leaf in tree_leaves(batch)]
    sizes = [len(leaf) // max(count, 1) for leaf in leaves]
    return [
        _digest(*(leaf[i * size : (i + 1) * size] for leaf, size in zip(leaves, sizes, strict=True)))
        for i in range(count)
    ]


PLAIN = (int, float, complex, str, bytes)


def content_of(tensor: Tensor) -> memoryview:
    """The numbers of a dense tensor of any dtype as bytes, for digests."""
    # as bytes, because NumPy has no bfloat16
    return as_real(tensor.detach()).cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _digest(*parts: bytes | memoryview) -> int:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest())
