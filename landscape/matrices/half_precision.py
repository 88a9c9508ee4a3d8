"""What rounding in half precision does to products, beside float64. No error of a result covers it."""

from __future__ import annotations

import math
import warnings

import torch

from landscape.data.batches import copied_to
from landscape.fx.plain_formulas import twice_differentiable
from landscape.guards.in_float64 import few_and_more
from landscape.guards.repeated_runs import HALF
from landscape.loss.objective import Objective
from landscape.matrices.rule import Rule

SEED = 0


def warn_of_half_precision(rule: Rule, objective: Objective, *, fits: bool) -> None:
    """Warns of products in half precision.

    The residual of an eigenvalue, or the spread of a trace's probes, shows how exact the result is for the products
    that were computed. These are those of another function where rounding moves an activation over a kink.

    Args:
        rule: of the matrix.
        objective: gives the matrix.
        fits: whether there is memory for a comparison with float64.

    Warns:
        UserWarning: the objective's weights are in float16 or bfloat16. The message says by how much a product of a few
            samples differs from that in float64, if that is a number.
    """
    if objective.dtype not in HALF:
        return
    error = _error(rule, objective) if fits else None
    found = ""
    if error is not None:
        found = f": a product of a few samples differs by {error:.1g} of its length from that in float64"
    warnings.warn(
        f"model: its weights are in {objective.dtype}, and no stated error of an eigenvalue, trace or density covers "
        f"the rounding within the model{found}; rounding is largest at kinks (ReLU, MaxPool); for errors that hold, "
        "give the Objective dtype=torch.float32",
        stacklevel=6,
    )


@torch.enable_grad()
def _error(rule: Rule, objective: Objective) -> float | None:
    """The difference of a product in half precision from that in float64, relative to the latter."""
    few, _ = few_and_more(objective.in_float64, objective.chunks.all_or_first(), objective.chunk_size)
    inputs, targets = (copied_to(part, objective.device) for part in few.data)
    draws = torch.Generator().manual_seed(SEED)
    vector = (
        torch.randint(0, 2, objective.theta.shape, generator=draws, device="cpu").to(objective.theta) * 2 - 1
    )
    try:
        with twice_differentiable():
            theta = objective.theta.detach().clone().requires_grad_()
            outputs = objective.forward(theta, inputs)
            found = rule.direct(theta, outputs, lambda outputs: objective.loss_fn(outputs, targets))(vector)
            precise = few.run(
                few.theta.double(),
                lambda variable, outputs: rule.direct(variable, outputs, few.loss)(vector.double()),
            )
    except Exception:
        # the model or the loss fixes a dtype inside
        return None
    error, length = few.length(found.double() - precise), few.length(precise)
    # no number where derivatives overflow, of which another warning says more
    return error / length if length and math.isfinite(error) else None
