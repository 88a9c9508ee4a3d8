"""The units over which a sampling error is the spread: random groups of samples, or whole batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec

import torch
from torch import Tensor

from landscape.data.counts import check_that_it_is_a_mean
from landscape.data.samples import Chunk
from landscape.loss.objective import Objective
from landscape.model.precision import full_float32
from landscape.seeds import generator_for

FEWEST_UNITS = 8
"""With fewer units, the relative error of the standard error is a quarter or more."""

P = ParamSpec("P")


@dataclass(frozen=True)
class OfUnits:
    """Measurements of each unit from one pass over the data. A stream may give the units in another order in each pass.

    Attributes:
        weights: (units,), the weights of this rank's units.
        values: (units, ...), the values of this rank's units.
    """

    weights: Tensor
    values: Tensor


@dataclass(frozen=True)
class Units:
    """An objective whose chunks are the units, each an independent part of the data.

    Attributes:
        whole: the objective as it was given, in chunks of its own.
        objective: the same mean loss, cut into units.
        count: number of units of all ranks.
        drawn: measured share of the population; 0 if the population is unbounded.
        spend: called with 1 after each measurement of a unit.
    """

    whole: Objective
    objective: Objective
    count: int
    drawn: float
    spend: Callable[[int], None] = lambda _: None

    def told(self, measure: Callable[P, Tensor]) -> Callable[P, Tensor]:
        """A measurement of one unit that tells when it is done."""

        def measured(*unit: P.args, **options: P.kwargs) -> Tensor:
            value = measure(*unit, **options)
            self.spend(1)
            return value

        return measured

    def mean(self, measured: OfUnits) -> Tensor:
        """The weighted mean over all units, in float64 on the CPU."""
        return self._sum(torch.tensordot(measured.weights, measured.values, 1)) / self.objective.weight

    def variance(self, measured: OfUnits) -> Tensor:
        """The sampling variance of each weighted mean: how much it would vary if other units had been drawn."""
        deviations = measured.values - self.mean(measured)
        return self.mean_square(OfUnits(measured.weights, deviations.square()))

    def mean_square(self, squares: OfUnits) -> Tensor:
        """The variance of weighted means, computed from the squared deviations of the units.

        A mean is the ratio of the sums of w v and of w. To first order its variance is that of the sum of w (v - mean)
        (Cochran 1977, section 6.4). The correction for a finite population is included.
        """
        square = self._sum(torch.tensordot(squares.weights.square(), squares.values, 1))
        return square * (1 - self.drawn) * self.count / ((self.count - 1) * self.objective.weight**2)

    @full_float32()
    def losses(self, *points: Tensor) -> OfUnits:
        """The mean loss of each unit at each point (n,), without the regularizer. Values are (units, points)."""
        objective = self.objective

        def at_all_points(chunk: Chunk) -> Tensor:
            losses = []
            for theta in points:
                inputs, targets = chunk.read()
                with objective.without_gradients():
                    losses.append(objective.loss_fn(objective.outputs(theta.clone(), inputs), targets))
            return torch.stack(losses).detach()

        return self._each(at_all_points)

    @full_float32()
    @torch.enable_grad()
    def gradients(self, theta: Tensor, measure: Callable[[Tensor], Tensor]) -> OfUnits:
        """The result of `measure` on each unit's gradient (n,) at the weights `theta` (n,)."""
        objective = self.objective
        objective.check_that_derivatives_exist()
        return self._each(
            lambda chunk: measure(objective.loss_and_gradient(theta, *chunk.read())[1].double())
        )

    def _each(self, measure: Callable[[Chunk], Tensor]) -> OfUnits:
        """The result of `measure` on each unit with a positive weight."""
        weights, values = [], []
        measure = self.told(measure)
        with self.objective.exclusive, self.objective.ranks.together():
            for chunk in self.objective.chunks:
                if chunk.weight:
                    weights.append(chunk.weight)
                    values.append(measure(chunk).double().cpu())
        return OfUnits(torch.tensor(weights, dtype=torch.float64, device="cpu"), torch.stack(values))

    def _sum(self, total: Tensor) -> Tensor:
        """The sum over all ranks."""
        return self.objective.ranks.over_samples(total.to(self.objective.device)).cpu()


def in_units(objective: Objective, *, groups: int, population: int | None, seed: int) -> Units:
    """Cuts the samples of an objective into random groups of one size; the last group may be smaller.

    Each batch that cannot be cut, and each batch of a stream, is a unit. The error is then over draws of batches.

    Args:
        objective: the objective with the samples.
        groups: at least this number of groups, in each process of a process group. If there are fewer samples, each
            sample is a group.
        population: size of the finite set from which the samples were drawn without replacement; None if unbounded.
        seed: seed of the groups.

    Raises:
        ValueError: fewer than 8 units, a population that is smaller than the samples, or a loss that is a sum.
    """
    if groups < FEWEST_UNITS:
        raise ValueError(f"groups: must be at least {FEWEST_UNITS}, got {groups}")
    if population is not None and population < objective.n_samples:
        raise ValueError(
            f"population: must be at least the {objective.n_samples} samples that were measured, got {population}"
        )
    check_that_it_is_a_mean(objective.counting)
    whole = objective
    if whole.chunks.is_uniform:
        samples = whole.chunks.samples
        generator = generator_for("groups of samples", seed)
        smaller = copy.copy(whole)
        smaller.chunk_size = max(1, samples // groups)
        # in random order, because data are often sorted by class
        objective = smaller.subset(samples=torch.randperm(samples, generator=generator, device="cpu"))
    with objective.ranks.together():
        own = float(sum(1 for chunk in objective.chunks if chunk.weight))
    units = torch.tensor(own, dtype=torch.float64, device="cpu")
    count = int(objective.ranks.over_samples(units.to(objective.device)))
    if count < FEWEST_UNITS:
        raise ValueError(
            f"data: a sampling error needs at least {FEWEST_UNITS} samples, or batches that cannot be cut, that count; "
            f"got {count}"
        )
    return Units(whole, objective, count, 0.0 if population is None else objective.n_samples / population)
