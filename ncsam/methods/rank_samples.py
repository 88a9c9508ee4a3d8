"""Samples that ranks exchange once, by which each sees whether a loss is a mean over the samples of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ncsam.methods.agreement import Agreement
from ncsam.methods.batches import Batch, rows_of, samples_in
from ncsam.methods.loss_checks import check_that_it_is_a_mean

FEW = 8
"""Samples of each rank."""


def few_targets_of_others(targets: Batch | None, ranks: Agreement) -> list[Batch]:
    """A few targets of each other rank that has at least two, on this rank's device. All ranks wait for each other.

    Args:
        targets: of this rank's part of the batch; None: it has none.
        ranks: that share the batch.
    """
    samples = 0 if targets is None else samples_in(targets) or 0
    own = None
    if samples > 1:
        few = rows_of(targets, _spread(samples, targets))
        own = tree_map(lambda leaf: leaf.detach().cpu(), few)
    ranks.agree()
    found: list[Any] = [None] * dist.get_world_size(ranks.group)
    dist.all_gather_object(found, own, group=ranks.group)
    del found[dist.get_rank(ranks.group)]
    return [tree_map(lambda leaf: leaf.to(ranks.device), few) for few in found if few is not None]


def check_beside_other_ranks(
    loss_fn: Callable[..., Any], outputs: Any, targets: Batch, others: list[Batch]
) -> bool:
    """Checks that the loss of samples of several ranks is the mean over the samples, as the ranks are weighted by.

    The labels of all samples of one rank may count alike, and yet not like those of another rank, as with padding or
    weights of classes. The outputs are this rank's own: whether a loss is a mean does not depend on them.

    Args:
        loss_fn: (outputs, targets) -> mean loss.
        outputs, targets: of this rank's part.
        others: a few targets of each other rank.

    Returns:
        Whether the part could be checked. It must have 2 samples.

    Raises:
        ValueError: the loss is no mean, or the targets of other ranks have another form and outputs have positions.
    """
    samples = samples_in((outputs, targets)) or 0
    if samples < 2:
        return False
    few = _spread(samples, targets)
    own_outputs, own_targets = rows_of(outputs, few), rows_of(targets, few)
    has_positions = any(leaf.ndim > 2 for leaf in tree_leaves(own_outputs))
    for other in others:
        count = samples_in(other) or 0
        rows = torch.arange(count, device=few.device) % len(few)
        both_outputs = tree_map(lambda *leaves: torch.cat(leaves), own_outputs, rows_of(own_outputs, rows))
        try:
            both_targets = tree_map(
                lambda own, their, rows=rows: _joined(own, their, rows, has_positions), own_targets, other
            )
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                "loss_fn: the targets of another rank have another form, so that one cannot see whether the loss is a "
                "mean over the samples or over their entries, such as tokens; give count=, what the mean loss of a "
                f"part divides by: {error}"
            ) from error
        check_that_it_is_a_mean(loss_fn, both_outputs, both_targets, [len(few), count])
    return True


def _joined(own: Tensor, their: Tensor, rows: Tensor, has_positions: bool) -> Tensor:
    """Rows of two ranks; where they do not fit, as inputs of unequal length, this rank's own in their place.

    Raises:
        RuntimeError: they do not fit, and the outputs have positions, each of which may have a label.
    """
    fits = own.shape[1:] == their.shape[1:]
    return torch.cat([own, their if fits or has_positions else own[rows]])


def _spread(samples: int, batch: Batch) -> Tensor:
    """Positions of a few samples that lie apart."""
    device = next(leaf.device for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
    return torch.linspace(0, samples - 1, min(FEW, samples), device="cpu").long().to(device)
