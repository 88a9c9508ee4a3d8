"""Probes of a trace for every sample at once: random signs, or all unit vectors where they are no more."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor


class Probes:
    """Directions that are independent for each sample. On a CPU chunks of any size get the same ones.

    Args:
        count: random signs that are wanted, at least 2. In a space of at most as many dimensions the directions are
            the unit vectors, and traces are exact.
        like: of the dtype and on the device of the directions.
        seed: of the signs.
    """

    def __init__(self, count: int, like: Tensor, seed: int) -> None:
        self._count, self._like = count, like
        seeds = torch.randint(2**62, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
        self._generators = [torch.Generator(like.device).manual_seed(each) for each in seeds]

    def directions(self, samples: int, dimension: int) -> Iterator[Tensor]:
        """For each probe, the directions (samples, dimension), of squared length `dimension`."""
        if dimension <= self._count:
            for unit in math.sqrt(dimension) * torch.eye(dimension).to(self._like):
                yield unit.expand(samples, -1)
            return
        shape = (samples, dimension)
        for generator in self._generators:
            bits = torch.randint(2, shape, generator=generator, device=self._like.device, dtype=torch.int8)
            yield bits.to(self._like.dtype).mul_(2).sub_(1)

    def estimate(self, values: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
        """The mean over the probes of values (probes, samples), and its standard error; float64 (samples,) each."""
        values = values.double()
        mean = values.mean(0)
        if dimension <= self._count:
            return mean, torch.where(mean.isfinite(), 0.0, torch.nan)
        return mean, values.std(0) / math.sqrt(len(values))
