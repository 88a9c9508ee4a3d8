"""Probes of a trace for every sample at once: random signs, or all unit vectors if these are no more than the signs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from landscape.seeds import generator_for


class Probes:
    """Directions that are independent for each sample, and do not depend on the size of chunks.

    Args:
        count: number of random signs, at least 2. In a space of at most this number of dimensions the directions are
            the unit vectors, and traces are exact.
        like: a tensor with the dtype and the device of the directions.
        seed: seed of the signs.
    """

    def __init__(self, count: int, like: Tensor, seed: int) -> None:
        self._count, self._like = count, like
        seeds = torch.randint(
            2**62, (count,), generator=generator_for("probes of samples", seed), device="cpu"
        ).tolist()
        self._generators = [torch.Generator().manual_seed(each) for each in seeds]

    def directions(self, samples: int, dimension: int) -> Iterator[Tensor]:
        """The directions (samples, dimension) of each probe. Their squared length is `dimension`."""
        if dimension <= self._count:
            for unit in math.sqrt(dimension) * torch.eye(dimension, device="cpu").to(self._like):
                yield unit.expand(samples, -1)
            return
        shape = (samples, dimension)
        for generator in self._generators:
            bits = torch.randint(2, shape, generator=generator, device="cpu", dtype=torch.int8)
            yield bits.to(self._like.device).to(self._like.dtype).mul_(2).sub_(1)

    def estimate(self, values: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
        """The mean over the probes of values (probes, samples), and its standard error; float64 (samples,) each."""
        values = values.double()
        mean = values.mean(0)
        if dimension <= self._count:
            return mean, torch.where(mean.isfinite(), 0.0, torch.nan)
        return mean, values.std(0) / math.sqrt(len(values))
