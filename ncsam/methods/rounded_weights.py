"""Weights in half precision, in which much of a perturbation is lost to rounding."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from weakref import WeakSet

import torch
from torch import Tensor, nn

MOST_LOST = 0.1
"""Share of the perturbation's norm that may be lost without a word."""

_looked_at: WeakSet[nn.Module] = WeakSet()


@torch.no_grad()
def warn_of_lost_perturbation(
    model: nn.Module, before: Sequence[Tensor], after: Sequence[Tensor], perturbation: Sequence[Tensor]
) -> None:
    """Compares what was added to the weights with what should be added. It looks at each model once.

    Args:
        model: whose weights they are.
        before: weights in any precision.
        after: the same weights, moved.
        perturbation: of the same shapes.
    """
    half = next((weight.dtype for weight in before if weight.dtype in (torch.bfloat16, torch.float16)), None)
    if half is None or model in _looked_at:
        return
    asked = sum(_squared(e) for e in perturbation)
    if asked == 0:
        # nothing can be said of a step without a perturbation
        return
    _looked_at.add(model)
    lost = sum(
        _squared(b.float() - a.float() - e) for a, b, e in zip(before, after, perturbation, strict=True)
    )
    share = (lost / asked) ** 0.5
    if share > MOST_LOST:
        warnings.warn(
            f"model: has weights in {str(half).removeprefix('torch.')}, whose rounding changes the perturbation by "
            f"{share:.0%} of its norm; keep the weights in float32, model.float(), and compute in half precision by "
            f"method.passes.autocast_dtype = {half}",
            stacklevel=2,
        )


def _squared(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
