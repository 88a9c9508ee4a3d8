"""Batches of any form: their number of samples, some of their samples, and the mean of their parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map

Batch = Any
"""Tensors in tuples, lists, dicts and any other objects."""

Forward = Callable[[nn.Module, Batch], Any]
"""(model, batch) -> outputs."""

Count = Callable[[Batch], Any]
"""batch -> how much its mean loss counts for."""


class OfBatch(TypedDict, total=False):
    """How a method runs the model on a batch, and how much the batch counts for; see `Method`."""

    forward: Forward | None
    count: Count | None


def samples_in(batch: Batch) -> int | None:
    """The number of samples of a batch that can be cut: the length of all its tensors. None for other batches."""
    # asked ten times a step, and most batches are single tensors, for which a walk through a tree takes longest
    if isinstance(batch, Tensor):
        return batch.size(0) if batch.ndim > 0 else None
    leaves = tree_leaves(batch)
    if not leaves or not all(isinstance(leaf, Tensor) and leaf.ndim > 0 for leaf in leaves):
        return None
    lengths = {len(leaf) for leaf in leaves}
    return lengths.pop() if len(lengths) == 1 else None


def remedy_of_no_tensors(name: str, batch: Batch) -> str:
    """What an error adds where a model or a loss fails on NumPy arrays or on a list, which it might have taken."""
    holds_arrays = any(isinstance(leaf, np.ndarray) for leaf in tree_leaves(batch))
    return f"; give torch.as_tensor({name})" if holds_arrays or isinstance(batch, list) else ""


def check_batch(inputs: Batch, targets: Batch) -> None:
    """Raises ValueError for an empty batch, and for inputs and targets of unequal number."""
    samples = samples_in(inputs)
    if samples == 0:
        raise ValueError("inputs: the batch is empty")
    if isinstance(inputs, Tensor) and isinstance(targets, Tensor) and len(targets) != samples:
        raise ValueError(f"targets: {len(targets)} for {samples} inputs")


def rows_of(batch: Batch, rows: slice | Tensor) -> Batch:
    """Some samples of a batch that can be cut. `rows` are a slice, or int64 (m,)."""
    return (
        _rows_of_one(batch, rows) if isinstance(batch, Tensor) else tree_map(lambda leaf: leaf[rows], batch)
    )


def _rows_of_one(tensor: Tensor, rows: slice | Tensor) -> Tensor:
    # several times faster than by brackets, which allow for any pattern of places
    return tensor[rows] if isinstance(rows, slice) else tensor.index_select(0, rows)


def piece_sizes(samples: int, size: int) -> list[int]:
    """The sizes of the pieces in which the samples pass through the model.

    BatchNorm has no statistics of a single sample, so a single sample at the end joins the piece before it.
    """
    sizes = [size] * (samples // size) + [samples % size] * (samples % size > 0)
    if size > 1 and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [size + 1]
    return sizes


def can_learn_from(model: nn.Module, rows: Tensor) -> bool:
    """Whether a training pass of these rows alone is possible: BatchNorm has no statistics of a single sample."""
    if len(rows) != 1:
        return len(rows) > 0
    return not any(isinstance(module, _BatchNorm) for module in model.modules())


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device; what its data loader pinned is moved without waiting."""
    if isinstance(batch, Tensor) and batch.device == device:
        return batch
    return tree_map(
        lambda leaf: leaf.to(device, non_blocking=leaf.is_pinned()) if isinstance(leaf, Tensor) else leaf,
        batch,
    )


def part_of_mean(loss: Tensor, share: float) -> Tensor:
    """What a piece's mean loss adds to that of the batch; a whole batch needs no operation for it."""
    return loss if share == 1 else loss * share


def sum_of_parts(parts: list[Tensor]) -> Tensor:
    """The mean loss of a batch from the parts of its pieces: a new scalar, which no later pass overwrites."""
    return parts[0].sum() if len(parts) == 1 else torch.stack(parts).sum()


def as_float32(outputs: Any) -> Any:
    """Outputs with their floating-point tensors in float32."""
    return tree_map(
        lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, outputs
    )


def detached(outputs: Any) -> Any:
    """Outputs without their graph."""
    if isinstance(outputs, Tensor):
        return outputs.detach()
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, outputs)


def joined(outputs: list[Any]) -> Any:
    """The outputs of the pieces of a batch: joined to one tensor where they are tensors, else as a list."""
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat(outputs) if all(isinstance(output, Tensor) for output in outputs) else outputs
