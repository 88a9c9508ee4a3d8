"""Checks that the loss of data is the counted mean of the losses of their parts, for batches of any form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import overload

import torch
from torch import Tensor

from landscape.data.batches import rows_of, samples_in
from landscape.data.counts import Counting, Pair
from landscape.guards.loss_failures import SHARED, remedy_of_sum
from landscape.guards.parts import Found, counted_mean
from landscape.guards.repeated_runs import (
    ALLOWED_IN_FLOAT64,
    HALF,
    changes,
    share_apart,
    share_between_runs,
)

PAIRS = 8

ALLOWED = {torch.float64: 1e-7, torch.float32: 1e-3}
"""Allowed relative difference between two ways to compute one mean loss; 0.05 in the shorter dtypes.

Rounding depends on how the samples are cut, and parts of a model may compute with less precision than its weights have.
"""

DECIDED = 1e-6
"""Above this relative difference float64 decides, where the model runs in it. There `ALLOWED_IN_FLOAT64` is allowed.
Everywhere the rounding of the outputs is allowed too."""


def check_that_losses_add_up(
    found_of: Callable[[Pair], Found],
    counting: Counting,
    pair: Pair,
    dtype: torch.dtype,
    precisely: Callable[[Pair], Found | None],
) -> None:
    """Checks that the loss of these samples is the counted mean of the losses of unequal parts of them.

    Args:
        found_of: batch -> its mean loss, and the rounding of its outputs.
        counting: how much a batch counts for.
        pair: some samples. A batch that cannot be cut is only run twice.
        dtype: dtype of the weights.
        precisely: the same in float64; None where it cannot be had.

    Raises:
        ValueError: the loss differs from one run to the next, or is not the counted mean.
    """
    whole, again = (_loss(found_of(pair)) for _ in range(2))
    # a loss may compute in a shorter dtype than the weights have
    allowed = max(ALLOWED.get(each, 0.05) for each in (dtype, whole.dtype))
    in_half = dtype if dtype in HALF else whole.dtype
    share, rounded = share_apart(again, whole), whole.to(in_half)
    if changes(share, rounded, lambda: share_between_runs(lambda: _loss(precisely(pair)))):
        raise ValueError(
            f"model: the loss of one batch is {whole.item():.6g} in one run and {again.item():.6g} in the next, and so "
            "would be every number; take the noise out of evaluation mode, or let it be a part of the batch"
        )
    samples = samples_in(pair) or 1
    if samples > 1:
        third = max(1, samples // 7)
        _check(
            found_of, counting, pair, [0, third, max(third + 1, samples // 2), samples], allowed, precisely
        )
    for start in range(0, min(samples - 1, 2 * PAIRS), 2):
        _check(found_of, counting, rows_of(pair, slice(start, start + 2)), [0, 1, 2], allowed, precisely)


def check_that_counts_add_up(counting: Counting, pair: Pair, apart: float) -> None:
    """Checks that samples together count for as much as apart.

    Raises:
        ValueError: they count for more or less.
    """
    together = counting.weight_of(pair)
    if not counting.is_sum and _differ(apart, together, together, 1e-6):
        raise ValueError(
            f"count: {samples_in(pair)} samples count for {together:.6g} together, for {apart:.6g} apart; give a sum "
            "over the samples"
        )


def _check(
    found_of: Callable[[Pair], Found],
    counting: Counting,
    pair: Pair,
    cuts: Sequence[int],
    allowed: float,
    precisely: Callable[[Pair], Found | None],
) -> None:
    parts = [rows_of(pair, slice(*ends)) for ends in pairwise(cuts) if ends[0] < ends[1]]
    of_parts = [counting.weight_of(part) for part in parts]
    check_that_counts_add_up(counting, pair, sum(of_parts))
    counted = [(weight, part) for weight, part in zip(of_parts, parts, strict=True) if weight > 0]
    if not counted:
        return
    weights, batches = [weight for weight, _ in counted], [pair, *(part for _, part in counted)]
    whole, *apart = [found_of(each) for each in batches]
    mean, scale = counted_mean(apart, weights, counting.whole)
    differ, doubt = False, ""
    if _differ(whole.loss, mean, scale, DECIDED):
        precise = [precisely(each) for each in batches]
        known = [each for each in precise if each is not None]
        # a short dtype leaves little of a loss that is a small difference of outputs, as KL is near its minimum
        if len(known) == len(precise):
            whole, *apart = known
            mean, scale = counted_mean(apart, weights, counting.whole)
            allowed = ALLOWED_IN_FLOAT64
        elif whole.dtype != torch.float64:
            doubt = "; if that is no more than rounding, give dtype=torch.float64"
        differ = abs(whole.loss - mean) > allowed * scale + whole.rounding
    if differ:
        raise ValueError(
            f"loss_fn: is not the mean over the samples, as they are counted: {samples_in(pair)} samples together have "
            f"{whole.loss:.6g}, {len(parts)} parts of them by their counts have {mean:.6g}{doubt}; "
            f"{remedy_of_sum(whole.loss, sum(each.loss for each in apart), allowed)}give count=, a function from a "
            f"batch to what its mean loss divides by (samples, tokens, the sum of weights); {SHARED}"
        )


def _differ(one: float, other: float, scale: float, allowed: float) -> bool:
    """Whether two losses differ; False if either is no number."""
    return abs(one - other) > allowed * scale


@overload
def _loss(found: Found) -> Tensor: ...
@overload
def _loss(found: None) -> None: ...
def _loss(found: Found | None) -> Tensor | None:
    return None if found is None else torch.tensor(found.loss, dtype=found.dtype, device="cpu")
