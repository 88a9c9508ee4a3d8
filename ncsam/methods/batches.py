"""Batches of any form: their number of samples, some of their samples, and their weight in a mean loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

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
    leaves = tree_leaves(batch)
    if not leaves or not all(isinstance(leaf, Tensor) and leaf.ndim > 0 for leaf in leaves):
        return None
    lengths = {len(leaf) for leaf in leaves}
    return lengths.pop() if len(lengths) == 1 else None


def rows_of(batch: Batch, rows: slice | Tensor) -> Batch:
    """Some samples of a batch that can be cut."""
    return tree_map(lambda leaf: leaf[rows], batch)


def can_learn_from(model: nn.Module, rows: Tensor) -> bool:
    """Whether a training pass of these rows alone is possible: BatchNorm has no statistics of a single sample."""
    if len(rows) != 1:
        return len(rows) > 0
    return not any(isinstance(module, _BatchNorm) for module in model.modules())


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device; what its data loader pinned is moved without waiting."""
    return tree_map(
        lambda leaf: leaf.to(device, non_blocking=leaf.is_pinned()) if isinstance(leaf, Tensor) else leaf,
        batch,
    )


def ignored_label(loss_fn: object) -> int | None:
    """The label that a loss leaves out; None for a loss that leaves out no label."""
    if loss_fn is nn.functional.cross_entropy:
        return -100
    label = getattr(loss_fn, "ignore_index", None)
    return label if isinstance(label, int) else None


def weight_of(loss_fn: object, targets: Batch) -> float:
    """The weight of the mean loss of some samples: their number, or the sum by which a loss of torch divides."""
    samples = float(samples_in(targets) or 1)
    if not isinstance(loss_fn, nn.CrossEntropyLoss | nn.NLLLoss) or targets.is_floating_point():
        return samples
    kept = targets[targets != loss_fn.ignore_index]
    return float(len(kept)) if loss_fn.weight is None else float(loss_fn.weight[kept].sum())


def is_sum(loss_fn: object) -> bool:
    """Whether a loss of torch is a sum over the samples."""
    return type(loss_fn).__module__ == nn.modules.loss.__name__ and getattr(loss_fn, "reduction", "") == "sum"


def as_float32(outputs: Any) -> Any:
    """Outputs with their floating-point tensors in float32."""
    return tree_map(
        lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, outputs
    )


def detached(outputs: Any) -> Any:
    """Outputs without their graph."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, outputs)


def joined(outputs: list[Any]) -> Any:
    """The outputs of the pieces of a batch: joined to one tensor where they are tensors, else as a list."""
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat(outputs) if all(isinstance(output, Tensor) for output in outputs) else outputs
