"""Checks that the outputs for a sample are its own: not random, and not mixed with other samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from landscape.data.random_state import borrowed_generators
from landscape.guards.agreement import agree_but_for_rounding, agree_within, differ_by_at_most
from landscape.guards.repeated_runs import HALF, changes, share_apart

_DIFFER = (
    "model: its outputs for a sample differ from one run of the same batch to the next, and so would every "
    "number; "
)
RANDOM = _DIFFER + (
    "they depend on random numbers that it draws; take the noise out of evaluation mode (if self.training:), or let it "
    "be a part of the inputs"
)
CHANGING = _DIFFER + (
    "take noise, counters and caches that passes fill out of evaluation mode (if self.training:, use_cache=False), or "
    "let them be a part of the batch, of which each pass gets a copy; where sums without a fixed order differ so much, "
    "give dtype=torch.float64"
)
MIXING = (
    "model: its outputs for a sample differ from one run to the next, or with the other samples of the batch, or with "
    "its place in the batch, so that the loss is no mean over samples; give BatchNorm running statistics "
    "(track_running_stats=True), experts no limit of capacity that samples share, so that the route of a sample is its "
    "own, functional dropout training=self.training, adaptive solvers (odeint) a smaller rtol and atol, or fixed "
    "steps, as they choose their steps by the whole batch, and sequences the axis that the model takes for the batch "
    "(batch_first); or measure the mean over batches as they are given: by forward= and count=, with a tensor without "
    "samples in each batch, such as torch.tensor(0)"
)


def checked_outputs(
    outputs_of: Callable[[Tensor], Tensor],
    rows: Tensor,
    device: torch.device,
    mixes: Callable[[int], bool],
    in_float64: Callable[[], float | None],
) -> Tensor:
    """The outputs of some samples, after a check: the last few of the samples alone must have the same outputs.

    Args:
        outputs_of: indices of samples -> outputs, of a model on `device`.
        rows: indices of the samples.
        device: device of the model.
        mixes: whether the outputs of so many of the last samples depend on the others, in float64. It is asked where
            the outputs differ by more than some roundings, and in half precision where they differ at all.
        in_float64: as for `changes`.

    Raises:
        ValueError: the outputs are random, depend on the other samples, or have a row for each of few samples only.
    """
    # the last ones, because alone they have other places in the batch
    few = rows[-min((len(rows) + 1) // 2, 4) :]
    # a model that draws is refused, but must not move the caller's random state
    with borrowed_generators(device):
        outputs = outputs_of(rows)
        if not isinstance(outputs, Tensor) or len(outputs) != len(rows):
            raise ValueError(
                "model: it returns a row of outputs for each of a few samples, and not for each of more; let it do so "
                "for any number of samples"
            )
        try:
            again = outputs_of(few)
            repeated = outputs_of(few)
        except (RuntimeError, ValueError):
            # some models cannot take a single sample, or take only one size of batch
            again, repeated = outputs_of(rows)[-len(few) :], outputs[-len(few) :]
    if changes(share_apart(repeated, again), again, in_float64):
        raise ValueError(CHANGING)
    alone = outputs[-len(few) :]
    # outputs that are mixed a little differ by less than 20 roundings of half precision
    alike = differ_by_at_most(again, alone, 0.0) if alone.dtype in HALF else agree_within(again, alone, 0.0)
    if not agree_but_for_rounding(again, alone) or (not alike and mixes(len(few))):
        raise ValueError(MIXING)
    return outputs
