"""A random part of the samples, whose matrices resemble those of all samples at a share of the cost."""

from __future__ import annotations

import torch

from landscape.loss.objective import Objective
from landscape.seeds import generator_for


def random_part(objective: Objective, share: float, seed: int) -> Objective:
    """The objective of a random share of the samples (of each process' samples), at least one.

    Raises:
        ValueError: the share is not between 0 and 1, the loss is a sum, or the samples cannot be cut.
    """
    if not 0 < share < 1:
        raise ValueError(f"part: must be a share of the samples between 0 and 1, got {share}")
    if objective.counting.is_sum:
        raise ValueError(
            "part: the loss is a sum, which is smaller for a part of the samples; make the Objective with "
            "reduction='mean'"
        )
    if not objective.chunks.is_uniform:
        raise ValueError(
            "part: these data are a stream, or batches that cannot be cut; leave out part, or make the Objective of "
            "tensors"
        )
    samples = objective.chunks.samples
    order = torch.randperm(samples, generator=generator_for("part of the samples", seed), device="cpu")
    try:
        return objective.subset(samples=order[: max(1, round(share * samples))])
    except ValueError as error:
        raise ValueError(
            f"part: the samples that were drawn cannot be measured ({error}); take a larger part"
        ) from error
