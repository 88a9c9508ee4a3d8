"""Batches of any form: their number of samples, some of their samples, and their weight in a mean loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map

IGNORED_BY_DEFAULT = -100
"""The label that torch's losses ignore if they are told no other."""

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


FUNCTIONS: tuple[tuple[Callable[..., Tensor], Callable[..., nn.Module]], ...] = (
    (nn.functional.cross_entropy, nn.CrossEntropyLoss),
    (nn.functional.nll_loss, nn.NLLLoss),
    (nn.functional.mse_loss, nn.MSELoss),
    (nn.functional.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss),
)
"""Losses of torch as functions, and as modules."""


def as_module(loss_fn: Any) -> Any:
    """One of torch's functions, also with options, as the module that it is; any other loss as it is."""
    options: dict[str, Any] = {}
    function = loss_fn
    if isinstance(loss_fn, partial) and not loss_fn.args:
        function, options = loss_fn.func, loss_fn.keywords
    return next((module(**options) for each, module in FUNCTIONS if each is function), loss_fn)


def is_known(loss_fn: object) -> bool:
    """Whether the divisor of a loss is known: one of torch's own, or one that divides by the labels that count."""
    return type(as_module(loss_fn)).__module__ == nn.modules.loss.__name__ or counts_labels(loss_fn)


def counts_labels(loss_fn: object) -> bool:
    """Whether a loss says that its mean is one over the samples whose label is not its `ignore_index`."""
    return getattr(loss_fn, "counts_labels", False) is True


def ignored_label(loss_fn: object) -> int | None:
    """The label that a loss leaves out; None for a loss that leaves out no label."""
    label = getattr(as_module(loss_fn), "ignore_index", None)
    return label if isinstance(label, int) else None


def has_label(loss_fn: object, targets: Tensor) -> Tensor:
    """Whether each label is one that the loss does not ignore. A loss of one's own may ignore what torch's do."""
    return targets.ne(ignored_or_default(loss_fn))


def ignored_or_default(loss_fn: object) -> int:
    """The label that a loss leaves out; what torch's leave out for a loss that does not say."""
    ignored = ignored_label(loss_fn)
    return IGNORED_BY_DEFAULT if ignored is None else ignored


def weight_of(loss_fn: object, targets: Batch) -> float:
    """The weight of the mean loss of some samples: their number, or the sum by which a loss of torch divides."""
    samples = float(samples_in(targets) or 1)
    loss_fn = as_module(loss_fn)
    if counts_labels(loss_fn) and isinstance(targets, Tensor):
        return float(has_label(loss_fn, targets).sum())
    if not isinstance(loss_fn, nn.CrossEntropyLoss | nn.NLLLoss) or not isinstance(targets, Tensor):
        return samples
    if targets.is_floating_point():
        return samples
    kept = targets[targets != loss_fn.ignore_index]
    if loss_fn.weight is None:
        return float(len(kept))
    # a label that is no class is refused by the loss itself, with its sample
    return float(loss_fn.weight[kept.clamp(0, len(loss_fn.weight) - 1)].sum())


def part_of_mean(loss: Tensor, share: float) -> Tensor:
    """What a piece's mean loss adds to that of the batch; a whole batch needs no operation for it."""
    return loss if share == 1 else loss * share


def sum_of_parts(parts: list[Tensor]) -> Tensor:
    """The mean loss of a batch from the parts of its pieces: a new scalar, which no later pass overwrites."""
    return parts[0].sum() if len(parts) == 1 else torch.stack(parts).sum()


def is_sum(loss_fn: object) -> bool:
    """Whether a loss of torch is a sum over the samples."""
    module = as_module(loss_fn)
    return isinstance(module, nn.modules.loss._Loss) and module.reduction == "sum"


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
