"""The few samples that reveal a loss that is no mean, and a model that mixes samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from landscape.data.batches import rows_of, samples_in
from landscape.data.complex_numbers import as_real, is_whole
from landscape.data.counts import Pair

LOOKED_AT = 128
"""Number of samples that are checked, beside those with rare values."""

MOST_SAMPLES = 128
"""Most samples that are taken of a batch of any form."""

FEWEST = 8
"""Fewest samples that are run at a time, because some models take no single one."""


def telling_rows(targets: Tensor) -> Tensor:
    """Indices of a hundred samples, which reveal a loss that is no mean and a model that mixes samples."""
    rows = torch.linspace(0, len(targets) - 1, min(len(targets), LOOKED_AT), device="cpu").long()
    # only samples of a class show that the class has a weight or is ignored; so it is with masks and missing values
    return torch.cat([rows, _rows_of_rare_values(targets.cpu())]).unique()


def telling_samples(pair: Pair, most: int) -> Pair:
    """At most a hundred of the samples, with those that hold the rarest integers, such as ignored labels."""
    samples = samples_in(pair)
    if samples is None:
        return pair
    rare = [telling_rows(leaf) for leaf in tree_leaves(pair[1]) if is_whole(leaf)]
    rows = (
        torch.cat([torch.arange(0, device="cpu"), *rare]).unique()
        if rare
        else torch.arange(samples, device="cpu")
    )
    most = min(len(rows), max(most, FEWEST), MOST_SAMPLES)
    return rows_of(pair, rows[torch.linspace(0, len(rows) - 1, most, device="cpu").long()])


def _rows_of_rare_values(targets: Tensor) -> Tensor:
    """For each of the 100 rarest values, and for the smallest and the largest one, the first row that holds it.

    Floating-point values count if they occur more than once, like values of masks and values for missing data.
    If there are very many targets, such as the labels of pixels, only the smallest and the largest one of each row
    count: the values that losses ignore are -100 and 255 by convention.
    """
    rows = as_real(targets).reshape(len(targets), -1)
    if rows.numel() > 1_000_000:
        rows = torch.stack([rows.amin(1), rows.amax(1)], 1)
    if rows.is_floating_point():
        # each NaN would be a value of its own
        rows = rows.nan_to_num(torch.finfo(rows.dtype).max)
    _, values, counts = rows.unique(return_inverse=True, return_counts=True)
    row = torch.arange(len(rows), device="cpu").repeat_interleave(rows.shape[1])
    first = torch.full_like(counts, len(rows)).scatter_reduce(0, values.flatten(), row, "amin")
    extremes = torch.stack([first[0], first[-1]])
    if rows.is_floating_point():
        first, counts = first[counts > 1], counts[counts > 1]
    return torch.cat([first[counts.argsort()[:100]], extremes])
