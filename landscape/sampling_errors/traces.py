"""The sampling error of a trace, from the products of each group of samples with random signs."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from landscape.curvature.traces import TraceEstimate
from landscape.loss.matrices_by_name import matrix_named
from landscape.loss.objective import Objective
from landscape.sampling_errors.result import SamplingError, error_of
from landscape.sampling_errors.units import OfUnits, Units
from landscape.seeds import generator_for

PROBES = 16

FAR = 8
"""Standard errors between two estimates of one trace that chance does not explain."""


def trace_error(units: Units, estimate: TraceEstimate, seed: int) -> SamplingError:
    """The sampling error of a trace.

    The trace of each unit's matrix H is estimated as the mean of w^T H w over 16 vectors w of random signs, which all
    units share. These estimates have errors of their own, which add to the spread over the units. So the standard error
    is too large rather than too small, by a factor of sqrt(1 + f / 8) on average. Here f is the mean squared Frobenius
    norm, without the diagonal, of the differences between the units' matrices, divided by the variance of their traces.

    Args:
        units: the units of the objective.
        estimate: the measured trace.
        seed: seed of the signs.

    Raises:
        ValueError: the trace did not converge, or belongs to other samples or weights.
    """
    objective = units.objective
    if estimate.samples != objective.n_samples:
        raise ValueError(
            f"measured: is the trace of the mean loss over {estimate.samples} samples, not over these "
            f"{objective.n_samples}; measure it for this objective"
        )
    if not estimate.converged:
        raise ValueError(
            "measured: the trace did not converge; measure it with a larger max_products or rtol"
        )
    n = objective.n_parameters
    generator = generator_for("probes of a sampling error", seed)
    columns = _columns(objective)
    weights, forms, of_regularizer = torch.empty(0, device="cpu"), [], []
    operator = matrix_named(estimate.matrix, objective)
    for first in range(0, PROBES, columns):
        count = min(columns, PROBES - first)
        signs = (torch.randint(0, 2, (n, count), generator=generator, device="cpu").double() * 2 - 1).to(
            objective.device
        )
        weights, of_units = operator.of_chunks(signs, units.told(partial(_quadratic_forms, signs)))
        forms.append(of_units)
        of_regularizer.append((signs * operator.of_regularizer(signs.to(objective.theta))).sum(0).cpu())
    of_probes = OfUnits(weights, torch.cat(forms, 1))
    _check_the_trace(estimate, units.mean(of_probes) + torch.cat(of_regularizer))
    value = torch.tensor([estimate.value], dtype=torch.float64, device="cpu")
    numerical = torch.tensor([estimate.standard_error], dtype=torch.float64, device="cpu")
    variance = units.variance(OfUnits(weights, of_probes.values.mean(1, keepdim=True)))
    return error_of(units, ["trace"], value, variance, numerical=numerical, products=PROBES)


def passes(objective: Objective) -> int:
    """The number of passes over the data that `trace_error` makes."""
    return math.ceil(PROBES / _columns(objective))


def _columns(objective: Objective) -> int:
    """The number of vectors in a block."""
    # memory for a block, its products in the model's dtype and in float64, and one temporary copy of each
    return min(max(objective.memory_budget // (40 * objective.n_parameters), 1), PROBES)


def _quadratic_forms(signs: Tensor, product: Tensor) -> Tensor:
    """w^T H w for each vector w of signs (n, k), as a tensor (k,)."""
    return (signs * product).sum(0)


def _check_the_trace(estimate: TraceEstimate, forms: Tensor) -> None:
    """Checks that the quadratic forms of all samples (16,), whose mean is the trace, agree with the estimate."""
    mean, error = float(forms.mean()), float(forms.std()) / math.sqrt(len(forms))
    allowed = FAR * math.hypot(error, estimate.standard_error)
    if abs(mean - estimate.value) > allowed:
        raise ValueError(
            f"measured: is the trace of other weights or samples: {estimate.value:.6g}, where {len(forms)} random "
            f"vectors give {mean:.6g} for this objective, and could be {allowed:.3g} off; measure it for this objective"
        )
