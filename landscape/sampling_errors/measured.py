"""The sampling error of a result of any kind."""

from __future__ import annotations

import dataclasses

from landscape.curvature.eigenvalues import TopEigenvalues
from landscape.curvature.traces import TraceEstimate
from landscape.loss.loss_and_accuracy import Evaluation
from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_objective
from landscape.perturbations.worst_case import Sharpness
from landscape.progress import Progress, counted
from landscape.sampling_errors.eigenvalues import eigenvalue_errors
from landscape.sampling_errors.result import SamplingError
from landscape.sampling_errors.rises import loss_error, sharpness_error
from landscape.sampling_errors.traces import blocks, trace_error
from landscape.sampling_errors.units import Units, in_units

Measured = TopEigenvalues | TraceEstimate | Sharpness | Evaluation

VECTORS = 5
"""Vectors in float64: a probe and its products in two precisions, with copies."""


@of_objective
def sampling_error(
    objective: Objective,
    measured: Measured,
    *,
    groups: int = 32,
    population: int | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> SamplingError:
    """The sampling error of a result: its spread over draws of the samples from the same source, at the same weights.

    The numerical error of a result is its distance from the exact number of the measured samples. The sampling error is
    the distance of this exact number from the number of all samples of the source. The sampling error needs samples
    that are a random draw for the weights: test samples, or training samples that were drawn at random.

    The samples are cut into random groups, and the error is the spread over the groups. Cost: 2 to 5 products an
    eigenvalue, 16 products for a trace, 2 evaluations and 2 gradients for a sharpness, 1 evaluation for a loss.

    Args:
        objective: the objective that was measured.
        measured: the result of `top_eigenvalues`, `trace`, `sharpness` or `Objective.evaluate` for this objective.
        groups: about this number of groups. The relative error of the standard error is about 1 / sqrt(2 groups).
        population: size of the finite set, such as all training samples, from which the samples were drawn without
            replacement. If not given, the source is unbounded.
        seed: seed of the groups, of the probes of a trace, and of the sums by which other eigenvalues are located.
        progress: called with the measured groups, and with all that will be measured. True writes a line on the
            terminal.

    Raises:
        ValueError: an argument out of range, a loss that is a sum, or a result that did not converge, belongs to other
            samples or weights, or was stored without its vectors.
        TypeError: a result of another kind.
    """
    objective.memory.check_room(VECTORS, "sampling_error", in_float64=True)
    units = in_units(objective, groups=groups, population=population, seed=seed)
    measurements = 1
    if isinstance(measured, TraceEstimate):
        measurements = blocks(objective)
    elif isinstance(measured, Sharpness):
        # losses and gradients
        measurements = 2
    with counted(measurements * units.count, progress, "sampling error", "groups") as spend:
        return _error(dataclasses.replace(units, spend=spend), measured, seed)


def _error(units: Units, measured: Measured, seed: int) -> SamplingError:
    if isinstance(measured, TopEigenvalues):
        return eigenvalue_errors(units, measured, seed)
    if isinstance(measured, TraceEstimate):
        return trace_error(units, measured, seed)
    if isinstance(measured, Sharpness):
        return sharpness_error(units, measured)
    if isinstance(measured, Evaluation):
        return loss_error(units, measured)
    raise TypeError(
        "measured: must be what top_eigenvalues, trace, sharpness or Objective.evaluate gives, got "
        f"{type(measured).__name__}"
    )
