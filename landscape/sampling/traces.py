"""The sampling error of a trace, from the products of each group of samples with random signs."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.curvature.traces import TraceEstimate
from landscape.loss.matrices_by_name import matrix_named
from landscape.sampling.errors import SamplingError, error_of
from landscape.sampling.units import Units

PROBES = 16


def trace_error(units: Units, estimate: TraceEstimate, seed: int) -> SamplingError:
    """The sampling error of a trace.

    The trace of each unit's matrix is estimated by the same random signs w_1 to w_16, as the mean of w^T H w. The
    error of that, which differs from unit to unit, is a part of the spread: the standard error is rather too large. It
    is so by the factor sqrt(1 + f / 8) on average, f the mean squared Frobenius norm, without the diagonal, of how the
    units' matrices differ, over the variance of their traces.

    Args:
        units: of the objective.
        estimate: the trace as measured.
        seed: of the signs.
    """
    objective = units.objective
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (objective.n_parameters, PROBES), generator=generator).double() * 2 - 1
    signs = signs.to(objective.device)

    def quadratic_form(product: Tensor) -> Tensor:
        return (signs * product).sum().reshape(1) / PROBES

    of_units = matrix_named(estimate.matrix, objective).of_chunks(signs, quadratic_form)
    value = torch.tensor([estimate.value], dtype=torch.float64)
    return error_of(units, ["trace"], value, units.variance(of_units), 0 * value, products=PROBES)
