"""What rounding in the weights' own dtype does to derivatives, beside float64. No error of a result covers it."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from landscape.data.batches import copied, copied_to, rows_of, samples_in
from landscape.guards.in_float64 import InFloat64
from landscape.guards.repeated_runs import HALF
from landscape.model.derivatives import derivative
from landscape.model.long_vectors import norm
from landscape.model.weights import with_weights

COVERED = 1e-3
"""Largest relative difference from float64 that raises no warning.

In float32 networks with a loss above 1e-4 have 3e-4 at most. Where all labels are fitted, a loss of 1e-6 has 3e-2.
"""

NOTICED = 1e-5
"""The gradients are compared where the rounding of a loss is more than this share of it."""

MOST_WEIGHTS = 5_000_000
"""The gradients are compared of models of at most this many weights: five vectors more would be most of the memory."""

T = TypeVar("T")

# keyed by the measured copy, which the parts of an Objective share
_said: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@torch.enable_grad()
def warn_of_rounded_gradient(few: InFloat64) -> None:
    """Warns if the gradient in the weights' own dtype is not that in float64, but for what results state; once a model.

    The residual of an eigenvalue, the spread of a trace's probes, and `converged` say how exact a result is for the
    derivatives that were computed. In float32 cross-entropy has few digits where all labels are fitted. Half precision
    has a warning of its own, with the first product.

    Args:
        few: the loss of some samples. It is compared half by half: at a minimum the gradients of samples cancel.

    Warns:
        UserWarning: names the difference.
    """
    is_large = few.theta.numel() > MOST_WEIGHTS
    if is_large or few.theta.dtype in (*HALF, torch.float64) or was_warned(few.model):
        return
    try:
        if few.loses_precision or not few.is_near_rounding(NOTICED, few.theta.dtype):
            return
        pairs = [_apart(half, few.throughout) for half in _halves(few)]
    except Exception:
        # the model or the loss has a dtype of its own inside, or takes batches of one size
        return
    length = sum(length for _, length in pairs)
    error = sum(apart for apart, _ in pairs) / length if length else 0.0
    warn_beyond_what_is_covered(few, error, "the gradient")


def warn_beyond_what_is_covered(few: InFloat64, error: float, what: str) -> None:
    """Warns, once a model, if a share of a derivative by which it differs from float64 is more than `COVERED`."""
    if not COVERED < error < math.inf:
        return
    warn_once(
        few.model,
        f"model: rounding in {few.theta.dtype} changes {what} of some samples by {error:.1g} of its length, beside "
        "float64, and no stated error and no `converged` covers that; so it is where the loss is as small as the "
        "rounding of the outputs (all labels are fitted), or a small difference of large terms; give the Objective "
        "dtype=torch.float64",
    )


def warn_once(model: nn.Module, says: str) -> None:
    """Warns of rounding, unless this measured model had its warning."""
    if was_warned(model):
        return
    _said.add(model)
    warnings.warn(says, stacklevel=7)


def was_warned(model: nn.Module) -> bool:
    """Whether this measured model had a warning of rounding."""
    return model in _said


def in_own_dtype(few: InFloat64, theta: Tensor, use: Callable[[Tensor, Any], T]) -> T:
    """`use(variable, outputs)` in the dtype of the weights: the weights (n,) as a variable, and their outputs."""
    variable = theta.detach().to(few.theta.dtype, copy=True).requires_grad_()
    return with_weights(
        few.model,
        few.layout.unflatten(variable),
        lambda model: use(variable, few.forward(model, copied_to(few.data[0], few.theta.device))),
    )


def loss_in_own_dtype(few: InFloat64, outputs: Any) -> Tensor:
    """The mean loss of the samples in the dtype of the weights."""
    return few.loss_fn(outputs, copied(few.data[1])) * few.weight


def _halves(few: InFloat64) -> list[InFloat64]:
    samples = samples_in(few.data)
    # ranks that communicate within a pass take equally many
    if samples is None or samples < 2 or few.ranks.share_vectors:
        return [few]
    ends = (slice(0, samples // 2), slice(samples // 2, samples))
    return [replace(few, data=rows_of(few.data, rows)) for rows in ends]


def _apart(few: InFloat64, throughout: Callable[[], AbstractContextManager[object]]) -> tuple[float, float]:
    """The distance of the gradient from that in float64, and the length of the latter. It is taken tensor by tensor.

    Args:
        few: the loss of some samples.
        throughout: as `few.throughout`, known from more samples, so that no pass is needed to find it.
    """
    own = in_own_dtype(
        few, few.theta, lambda variable, outputs: derivative(loss_in_own_dtype(few, outputs), variable)
    )
    others = few.layout.unflatten(own)
    leaves = {
        name: part.detach().requires_grad_()
        for name, part in few.layout.unflatten(few.theta.double()).items()
    }
    squares: list[tuple[float, float]] = []

    def take(leaf: Tensor, name: str) -> None:
        assert leaf.grad is not None
        precise = leaf.grad.to_dense() if leaf.grad.is_sparse else leaf.grad
        leaf.grad = None
        squares.append((norm((precise - others[name]).flatten()) ** 2, norm(precise.flatten()) ** 2))

    for name, leaf in leaves.items():
        leaf.register_post_accumulate_grad_hook(partial(take, name=name))
    with throughout():
        few.at(leaves, lambda outputs: few.loss(outputs).backward(inputs=list(leaves.values())))
    apart, length = (math.sqrt(few.total(sum(each))) for each in zip(*squares, strict=True))
    return apart, length
