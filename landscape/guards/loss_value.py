"""Checks of the value that a loss returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from landscape.data.batches import Batch, copied, in_precision, samples_in
from landscape.data.task import LossFunction
from landscape.guards.float64_throughout import Float64Throughout
from landscape.guards.loss_failures import remedy_of
from landscape.guards.repeated_runs import changes, share_apart, share_between_runs


def checked_loss(loss_fn: LossFunction, outputs: Any, targets: Batch) -> Tensor:
    """The mean loss of some samples.

    Raises:
        ValueError: the loss fails on the samples, or is no real scalar tensor.
    """
    try:
        loss: Any = loss_fn(outputs, copied(targets))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        samples = samples_in(targets)
        raise ValueError(
            f"loss_fn: fails on {'a batch' if samples is None else samples} of the samples: {error} (outputs "
            f"{_shapes(outputs)}, targets {_shapes(targets)}); {remedy_of(error, outputs, targets)}"
        ) from error
    if not isinstance(loss, Tensor):
        raise ValueError(
            f"loss_fn: must return a scalar tensor, got {type(loss).__name__}; of several parts, return their sum; a "
            "number that is no tensor has no derivatives"
        )
    if loss.ndim:
        raise ValueError(
            f"loss_fn: must return a scalar, got shape {tuple(loss.shape)}; take the mean over the samples "
            "(reduction='mean')"
        )
    if loss.is_complex():
        raise ValueError(
            f"loss_fn: must return a real number, got {loss.dtype}; take its real part, or the squared modulus "
            "(outputs.abs().square()) before the mean"
        )
    return loss


def check_that_it_repeats(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> None:
    """Checks that a loss of the same outputs is the same again.

    Raises:
        ValueError: it is not.
    """
    # a loss may change its targets
    once, again = loss_fn(outputs, copied(targets)), loss_fn(outputs, copied(targets))

    def in_float64() -> float | None:
        return share_between_runs(lambda: loss_in_float64(loss_fn, outputs, targets))

    if changes(share_apart(again, once), outputs, in_float64):
        raise ValueError(
            f"loss_fn: the loss of the same outputs is {once.item():.6g} in one call and {again.item():.6g} in the "
            "next, and so would be every number; take noise, Dropout, call counters and running statistics out of the "
            "loss"
        )


def loss_in_float64(loss_fn: LossFunction, outputs: Any, targets: Batch) -> Tensor | None:
    """The loss of outputs in float64; None if it does not take float64, or rounds to a shorter dtype inside."""
    try:
        precise = in_precision(outputs, torch.float64)
        with Float64Throughout() as kept:
            loss = loss_fn(precise, copied(targets))
    except Exception:  # a loss may fail in any way
        return None
    return None if kept.shortens else loss


def _shapes(tree: Any) -> str:
    found = [tuple(leaf.shape) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return ", ".join(map(str, found[:3])) or type(tree).__name__
