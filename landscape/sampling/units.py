"""The units that a sampling error is the spread over: groups of samples drawn at random, or whole batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.loss.objective import Objective
from landscape.loss.precision import full_float32

FEWEST_UNITS = 8
"""With fewer units, the standard error itself is unknown by a quarter or more."""


@dataclass(frozen=True)
class Units:
    """An objective whose chunks are the units, each an independent part of the data.

    Attributes:
        objective: the same mean loss, cut into units.
        weights: (units,), how much each counts for; of this rank.
        total: sum of the weights of all ranks' units.
        count: units of all ranks.
        drawn: share of the population that was measured; 0 for an unbounded one.
    """

    objective: Objective
    weights: Tensor
    total: float
    count: int
    drawn: float

    def mean(self, values: Tensor) -> Tensor:
        """The weighted mean of the units' values (units, ...), in float64 on the CPU."""
        return self._sum(torch.tensordot(self.weights, values, 1)) / self.total

    def variance(self, values: Tensor) -> Tensor:
        """The variances of the weighted means of the units' values (units, ...), over draws of the units."""
        return self.mean_square((values - self.mean(values)).square())

    def mean_square(self, squares: Tensor) -> Tensor:
        """The mean squared deviation of weighted means from the units' squared deviations (units, ...).

        A mean is a ratio of two sums, sum of w v to sum of w. Its variance is that of the sum of w (v - mean), to first
        order (Cochran 1977, section 6.4), with the correction for a finite population.
        """
        square = self._sum(torch.tensordot(self.weights.square(), squares, 1))
        return square * (1 - self.drawn) * self.count / ((self.count - 1) * self.total**2)

    @full_float32()
    def losses(self, theta: Tensor) -> Tensor:
        """The mean loss of each unit (units,) at the weights `theta` (n,), without the regularizer."""
        objective = self.objective
        losses = []
        for chunk in objective.chunks:
            if chunk.weight:
                inputs, targets = chunk.read()
                with objective.exclusive, objective.without_gradients():
                    outputs = objective.outputs(theta.clone(), inputs)
                    losses.append(objective.loss_fn(outputs, targets).detach().double().cpu())
        return torch.stack(losses)

    @full_float32()
    @torch.enable_grad()
    def gradients(self, theta: Tensor, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """What `measure` says of each unit's gradient (n,) at the weights `theta` (n,); (units, ...)."""
        objective = self.objective
        objective.check_that_derivatives_exist()
        measured = []
        for chunk in objective.chunks:
            if chunk.weight:
                with objective.exclusive:
                    _, gradient = objective.loss_and_gradient(theta, *chunk.read())
                measured.append(measure(gradient.double()).cpu())
        return torch.stack(measured)

    def _sum(self, total: Tensor) -> Tensor:
        """The sum over all ranks."""
        return self.objective.summed(total.to(self.objective.device)).cpu()


def in_units(objective: Objective, *, groups: int, population: int | None, seed: int) -> Units:
    """Cuts the samples of an objective into random groups of one size.

    Batches that cannot be cut, and those of a stream, are units as they are: the error is then that of other batches.

    Args:
        objective: whose samples.
        groups: how many, in each process of a process group; every sample by itself if there are fewer.
        population: size of the finite set that the samples were drawn from without replacement; None if unbounded.
        seed: of the groups.

    Raises:
        ValueError: fewer than 8 units, a population that is smaller than the samples, or samples of no common count.
    """
    if groups < FEWEST_UNITS:
        raise ValueError(f"groups: must be at least {FEWEST_UNITS}, got {groups}")
    if population is not None and population < objective.n_samples:
        raise ValueError(
            f"population: must be at least the {objective.n_samples} samples that were measured, got {population}"
        )
    if objective.chunks.is_uniform:
        samples = objective.chunks.samples
        generator = torch.Generator().manual_seed(seed)
        smaller = copy.copy(objective)
        smaller.chunk_size = -(-samples // groups)
        # in random order, because data are often sorted by class
        objective = smaller.subset(samples=torch.randperm(samples, generator=generator))
    weights = torch.tensor([chunk.weight for chunk in objective.chunks if chunk.weight], dtype=torch.float64)
    totals = torch.stack([weights.sum(), torch.tensor(float(len(weights)), dtype=torch.float64)])
    total, count = objective.summed(totals.to(objective.device)).tolist()
    if count < FEWEST_UNITS:
        raise ValueError(
            f"data: a sampling error needs at least {FEWEST_UNITS} samples, or batches that cannot be cut, that count; "
            f"got {count:.0f}"
        )
    drawn = 0.0 if population is None else objective.n_samples / population
    return Units(objective, weights, total, int(count), drawn)
