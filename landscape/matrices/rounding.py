"""What rounding does to products, beside float64. No error of a result covers it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.fx.plain_formulas import twice_differentiable
from landscape.guards.in_float64 import InFloat64
from landscape.guards.repeated_runs import HALF
from landscape.guards.rounding import (
    in_own_dtype,
    loss_in_own_dtype,
    warn_beyond_what_is_covered,
    warn_once,
    was_warned,
)
from landscape.matrices.rule import Rule

SEED = 0


@dataclass(frozen=True)
class Known:
    """A product in float64.

    Attributes:
        point: the weights (n,), exact in their own dtype.
        vector: (n,).
        product: (n,).
    """

    point: Tensor
    vector: Tensor
    product: Tensor


def warn_of_rounded_products(
    rule: Rule, model: nn.Module, dtype: torch.dtype, few: InFloat64 | None, known: Known | None
) -> None:
    """Warns of products that rounding changes by more than results state; in half precision always. Once a model.

    Args:
        rule: of the matrix.
        model: the measured model.
        dtype: of its weights.
        few: the loss of some samples; None if there is no memory for a comparison with float64.
        known: a product of these samples in float64; computed anew at the weights themselves if not given.

    Warns:
        UserWarning: the message says by how much a product of a few samples differs from that in float64, if that is a
            number.
    """
    if dtype == torch.float64 or was_warned(model):
        return
    error = _error(rule, few, known) if few is not None else None
    if dtype not in HALF:
        if few is not None:
            warn_beyond_what_is_covered(few, error or 0.0, "a product with the curvature")
        return
    found = ""
    if error is not None:
        found = f": a product of a few samples differs by {error:.1g} of its length from that in float64"
    warn_once(
        model,
        f"model: its weights are in {dtype}, and no stated error of an eigenvalue, trace or density covers "
        f"the rounding within the model{found}; rounding is largest at kinks (ReLU, MaxPool); for errors that hold, "
        "give the Objective dtype=torch.float32",
    )


@torch.enable_grad()
def _error(rule: Rule, few: InFloat64, known: Known | None) -> float | None:
    """The difference of a product from that in float64, relative to the latter."""
    try:
        # a model that rounds to a shorter dtype inside is itself short of float64; half precision has its word anyway
        if few.loses_precision and few.theta.dtype not in HALF:
            return None
        with twice_differentiable():
            known = known or _known(rule, few)
            found = in_own_dtype(
                few,
                known.point,
                lambda variable, outputs: rule.direct(
                    variable, outputs, lambda outputs: loss_in_own_dtype(few, outputs)
                )(known.vector.to(variable)),
            )
    except Exception:
        # the model or the loss fixes a dtype inside
        return None
    error, length = few.length(found.double() - known.product), few.length(known.product)
    # no number where derivatives overflow, of which another warning says more
    return error / length if length and math.isfinite(error) else None


def _known(rule: Rule, few: InFloat64) -> Known:
    """A product at the weights themselves."""
    draws = torch.Generator().manual_seed(SEED)
    signs = torch.randint(0, 2, few.theta.shape, generator=draws, dtype=torch.int8, device="cpu")
    signs = signs.to(few.theta) * 2 - 1
    point, vector = few.theta.double(), signs.double()
    with few.throughout():
        product = few.run(point, lambda variable, outputs: rule.direct(variable, outputs, few.loss)(vector))
    return Known(point, vector, product)
