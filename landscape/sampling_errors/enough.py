"""A measure on as many of the samples as it needs for a given sampling error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

from landscape.checks import check_rtol
from landscape.curvature.eigenvalues import TopEigenvalues
from landscape.curvature.traces import TraceEstimate
from landscape.loss.loss_and_accuracy import Evaluation
from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_objective
from landscape.perturbations.worst_case import Sharpness
from landscape.sampling_errors.measured import VECTORS, sampling_error
from landscape.sampling_errors.result import SamplingError
from landscape.seeds import generator_for

M = TypeVar("M", TopEigenvalues, TraceEstimate, Sharpness, Evaluation)


@dataclass(frozen=True)
class EnoughSamples(Generic[M]):
    """A measure on a random part of the samples, with both of its errors.

    Attributes:
        measured: the result on the part, with its numerical error.
        sampling: its distance from the result on all samples: standard errors, biases, 95% intervals.
        objective: the objective of the part.
        tried: numbers of samples on which was measured, the last of which was enough.
    """

    measured: M
    sampling: SamplingError
    objective: Objective
    tried: tuple[int, ...]

    @property
    def samples(self) -> int:
        """The number of samples that was enough."""
        return self.tried[-1]


@of_objective
def enough_samples(
    objective: Objective,
    measure: Callable[[Objective], M],
    *,
    rtol: float = 0.05,
    first: int = 256,
    groups: int = 32,
    seed: int = 0,
) -> EnoughSamples[M]:
    """Measures on as few random samples as make the sampling error of each value at most `rtol` of it.

    The measure is taken on `first` samples. While a sampling error, the root of standard error and bias squared and
    summed, exceeds `rtol` of its value, or is not known because eigenvalues meet, the measure is taken again on at
    least twice as many samples, which hold the former ones: as many as the last error asks for. On all samples there is
    no sampling error. All tries together cost at most three times the last one. The estimated error decides when to
    stop, so that its interval may hold less often than it says (docs/curvature.md). A measure that is much more
    accurate than `rtol` costs more and gains nothing.

    Args:
        objective: of all samples.
        measure: objective -> the result of `top_eigenvalues`, `trace`, `sharpness` or `Objective.evaluate` for it.
        rtol: sampling error allowed, relative to each value.
        first: number of samples of the first try.
        groups: see `sampling_error`.
        seed: seed of the order in which samples are taken, and of the groups.

    Raises:
        ValueError: an argument out of range, data that cannot be cut into samples, a loss that is a sum, or a result
            that did not converge.
        TypeError: the measure gives a result of another kind.
    """
    if not callable(measure):
        raise TypeError(
            f"measure: must be a function of an Objective, got {type(measure).__name__}; such as "
            "lambda objective: top_eigenvalues(objective, 1)"
        )
    check_rtol(rtol)
    if first < groups:
        raise ValueError(f"first: must be at least the number of groups, {groups}, got {first}")
    total = objective.n_samples
    own = objective.chunks.samples
    order = torch.randperm(own, generator=generator_for("samples that are enough", seed), device="cpu")
    tried: list[int] = []
    wanted = first
    while True:
        # with a process group, each rank takes the same share of its own samples
        rows = order[: math.ceil(wanted / total * own)]
        part = objective if wanted >= total else objective.subset(samples=rows)
        with part.memory.before(VECTORS, in_float64=True):
            measured = measure(part)
        error = sampling_error(part, measured, groups=groups, population=total, seed=seed)
        tried.append(part.n_samples)
        allowed = rtol * np.abs(error.values)
        is_known = np.isfinite(error.low) & np.isfinite(error.high)
        within = np.hypot(error.standard_errors, error.biases) <= allowed
        if part.n_samples == total or np.all(within & is_known):
            return EnoughSamples(measured, error, part, tuple(tried))
        wanted = int(min(total, max(2 * tried[-1], error.samples_for(rtol).max())))
