"""The units that a sampling error is the spread over: groups of samples drawn at random, or whole batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.loss.objective import Objective
from landscape.loss.precision import full_float32
from landscape.loss.samples import Chunk

FEWEST_UNITS = 8
"""With fewer units, the standard error itself is unknown by a quarter or more."""


@dataclass(frozen=True)
class OfUnits:
    """What was measured of each unit in one pass over the data, which a stream may give in another order each time.

    Attributes:
        weights: (units,), how much each unit counts for; of this rank.
        values: (units, ...), of this rank.
    """

    weights: Tensor
    values: Tensor


@dataclass(frozen=True)
class Units:
    """An objective whose chunks are the units, each an independent part of the data.

    Attributes:
        objective: the same mean loss, cut into units.
        count: units of all ranks.
        drawn: share of the population that was measured; 0 for an unbounded one.
    """

    objective: Objective
    count: int
    drawn: float

    def mean(self, measured: OfUnits) -> Tensor:
        """The weighted mean over all units, in float64 on the CPU."""
        return self._sum(torch.tensordot(measured.weights, measured.values, 1)) / self.objective.weight

    def variance(self, measured: OfUnits) -> Tensor:
        """The variances of the weighted means, over draws of the units."""
        deviations = measured.values - self.mean(measured)
        return self.mean_square(OfUnits(measured.weights, deviations.square()))

    def mean_square(self, squares: OfUnits) -> Tensor:
        """The mean squared deviation of weighted means from the units' squared deviations.

        A mean is a ratio of two sums, sum of w v to sum of w. Its variance is that of the sum of w (v - mean), to first
        order (Cochran 1977, section 6.4), with the correction for a finite population.
        """
        square = self._sum(torch.tensordot(squares.weights.square(), squares.values, 1))
        return square * (1 - self.drawn) * self.count / ((self.count - 1) * self.objective.weight**2)

    @full_float32()
    def losses(self, *points: Tensor) -> OfUnits:
        """The mean losses of each unit at weights (n,), without the regularizer; values (units, points)."""
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
        """What `measure` says of each unit's gradient (n,) at the weights `theta` (n,)."""
        objective = self.objective
        objective.check_that_derivatives_exist()
        return self._each(
            lambda chunk: measure(objective.loss_and_gradient(theta, *chunk.read())[1].double())
        )

    def _each(self, measure: Callable[[Chunk], Tensor]) -> OfUnits:
        """What `measure` says of each unit that counts."""
        weights, values = [], []
        with self.objective.exclusive:
            for chunk in self.objective.chunks:
                if chunk.weight:
                    weights.append(chunk.weight)
                    values.append(measure(chunk).double().cpu())
        return OfUnits(torch.tensor(weights, dtype=torch.float64), torch.stack(values))

    def _sum(self, total: Tensor) -> Tensor:
        """The sum over all ranks."""
        return self.objective.summed(total.to(self.objective.device)).cpu()


def in_units(objective: Objective, *, groups: int, population: int | None, seed: int) -> Units:
    """Cuts the samples of an objective into random groups of one size; the last group may be smaller.

    Batches that cannot be cut, and those of a stream, are units as they are: the error is then that of other batches.

    Args:
        objective: whose samples.
        groups: at least how many, in each process of a process group; each sample is a group if there are fewer.
        population: size of the finite set that the samples were drawn from without replacement; None if unbounded.
        seed: of the groups.

    Raises:
        ValueError: fewer than 8 units, a population that is smaller than the samples, or a loss that is a sum.
    """
    if groups < FEWEST_UNITS:
        raise ValueError(f"groups: must be at least {FEWEST_UNITS}, got {groups}")
    if population is not None and population < objective.n_samples:
        raise ValueError(
            f"population: must be at least the {objective.n_samples} samples that were measured, got {population}"
        )
    if objective.counting.is_sum:
        raise ValueError(
            "objective: its loss is a sum, which grows with the samples; make the Objective with reduction='mean'"
        )
    if objective.chunks.is_uniform:
        samples = objective.chunks.samples
        generator = torch.Generator().manual_seed(seed)
        smaller = copy.copy(objective)
        smaller.chunk_size = max(1, samples // groups)
        # in random order, because data are often sorted by class
        objective = smaller.subset(samples=torch.randperm(samples, generator=generator))
    units = torch.tensor(float(sum(1 for chunk in objective.chunks if chunk.weight)), dtype=torch.float64)
    count = int(objective.summed(units.to(objective.device)))
    if count < FEWEST_UNITS:
        raise ValueError(
            f"data: a sampling error needs at least {FEWEST_UNITS} samples, or batches that cannot be cut, that count; "
            f"got {count}"
        )
    return Units(objective, count, 0.0 if population is None else objective.n_samples / population)
