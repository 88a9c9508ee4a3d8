"""What is known of torch's own losses, and of losses that say it: the labels they ignore and what they divide by."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from ncsam.methods.batches import Batch, samples_in

IGNORED_BY_DEFAULT = -100
"""The label that torch's losses ignore if they are told no other."""

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


def is_sum(loss_fn: object) -> bool:
    """Whether a loss of torch is a sum over the samples."""
    module = as_module(loss_fn)
    return isinstance(module, nn.modules.loss._Loss) and module.reduction == "sum"
