"""Weights of batches in the mean loss of all data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from landscape.data.batches import Batch, rows_of, samples_in
from landscape.data.complex_numbers import is_whole
from landscape.data.lists_of_samples import OfSamples

Pair = tuple[Batch, Batch]
"""(inputs of the model, targets of its outputs); twice the whole batch if a batch is not split."""

Count = Callable[[Batch], Any]
"""batch -> weight of its mean loss: samples, tokens, pixels, weights. A number, or a tensor of one number."""

BY_PLACES = (nn.CrossEntropyLoss, nn.NLLLoss)
"""Losses that are means over places (samples, tokens, pixels) that are not ignored, weighted by their classes."""

BY_ENTRIES = (
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
    *(nn.BCELoss, nn.BCEWithLogitsLoss, nn.SoftMarginLoss, nn.PoissonNLLLoss),
)
"""Losses that are means over the entries of the targets."""


@dataclass(frozen=True)
class Counting:
    """The weights by which losses of parts combine to the loss of all: sum of weight times loss, over the whole weight.

    Attributes:
        of_samples: (inputs, targets) -> the weight of each sample, (samples,).
        of_batch: (inputs, targets) -> the weight of their mean loss; the sum over the samples if not given.
        is_sum: whether the loss is a sum over the samples. Then all parts and the whole have the weight 1.
        is_known: whether the counting is that of one of torch's own losses, and so holds for all data.
        ignored: the label that a loss of classes leaves out; None for other losses.
    """

    of_samples: Callable[[Pair], Tensor]
    of_batch: Callable[[Pair], float] | None = None
    is_sum: bool = False
    is_known: bool = False
    ignored: int | None = None

    def weight_of(self, pair: Pair) -> float:
        """The weight of the mean loss of a batch."""
        return float(self.of_samples(pair).sum()) if self.of_batch is None else self.of_batch(pair)

    def have_labels(self, pair: Pair) -> Tensor:
        """Whether each sample counts for the accuracy, (samples,): an ignored label, such as -100, is no class."""
        targets = pair[1]
        if not isinstance(targets, Tensor) or not is_whole(targets) or targets.ndim != 1:
            return torch.ones(samples_in(pair) or 1, dtype=torch.bool, device="cpu")
        counted = targets >= 0
        if self.ignored is not None:
            counted = counted & (targets != self.ignored)
        if self.is_known:
            counted = counted & (self.of_samples(pair).to(targets.device) > 0)
        return counted

    def labeled(self, pair: Pair) -> int:
        """The number of samples that count for the accuracy."""
        return int(self.have_labels(pair).sum())

    def whole(self, weights: float) -> float:
        """The weight of all data, from the sum of the weights of their parts."""
        return 1.0 if self.is_sum else weights


def counting_by(count: Count, of_whole_batches: Callable[[], bool]) -> Counting:
    """Counting by the caller's function of (inputs, targets), or of batches that are not split.

    Args:
        count: batch -> weight.
        of_whole_batches: whether batches are not split. The first batch tells, which is read later.
    """
    # no functions within this one, which could not be pickled
    of_batch = partial(_weight_by, count, of_whole_batches)
    return Counting(partial(_weights_by, of_batch), of_batch)


def _weight_by(count: Count, of_whole_batches: Callable[[], bool], pair: Pair) -> float:
    found = count(pair[0] if of_whole_batches() else pair)
    if isinstance(found, Tensor) and found.numel() != 1:
        raise ValueError(
            f"count: must return one number for a batch, got shape {tuple(found.shape)}; give the sum"
        )
    weight = float(found)
    if not 0 <= weight < float("inf"):
        raise ValueError(f"count: must be finite and not negative, got {weight} for a batch")
    return weight


def _weights_by(of_batch: Callable[[Pair], float], pair: Pair) -> Tensor:
    samples = samples_in(pair)
    parts = [pair] if samples is None else [rows_of(pair, slice(i, i + 1)) for i in range(samples)]
    return torch.tensor([of_batch(part) for part in parts], dtype=torch.float64, device="cpu")


def counting_of(loss_fn: object) -> Counting:
    """Counting by samples. For torch's own losses, by the number by which they divide, for all of their options.

    A loss of the caller's own with `counts_labels = True` says that it is the mean over the labels that are not its
    `ignore_index`, as those of ncsam do.
    """
    loss = _as_module(loss_fn)
    if loss is None and (ignored := _left_out(loss_fn)) is not None:
        return Counting(partial(_labels_but, ignored), ignored=ignored)
    if loss is None:
        return Counting(_one_each)
    if loss.reduction == "sum":
        ignored = loss.ignore_index if isinstance(loss, BY_PLACES) else None
        return Counting(_one_each, of_batch=_one, is_sum=True, ignored=ignored)
    if isinstance(loss, BY_PLACES):
        return Counting(partial(_places_of, loss), is_known=True, ignored=loss.ignore_index)
    if isinstance(loss, BY_ENTRIES):
        return Counting(_entries, is_known=True)
    return Counting(_one_each)


FUNCTIONS: dict[Any, Callable[..., nn.Module]] = {
    nn.functional.cross_entropy: nn.CrossEntropyLoss,
    nn.functional.nll_loss: nn.NLLLoss,
}
"""Losses that leave out ignored targets by default."""


def _as_module(loss_fn: Any) -> Any:
    """The module of one of torch's losses, also for a function with options; None for other losses."""
    if type(loss_fn).__module__ == nn.modules.loss.__name__:
        return loss_fn
    options = {}
    if isinstance(loss_fn, partial) and not loss_fn.args:
        loss_fn, options = loss_fn.func, loss_fn.keywords
    for function, module in FUNCTIONS.items():
        if loss_fn is function:
            return module(**options)
    return None


def _left_out(loss_fn: object) -> int | None:
    """The label that a loss leaves out by its own word."""
    ignored = getattr(loss_fn, "ignore_index", None)
    return ignored if isinstance(ignored, int) and getattr(loss_fn, "counts_labels", False) is True else None


def _labels_but(ignored: int, pair: Pair) -> Tensor:
    """The number of labels of each sample that are not the ignored one."""
    targets, ones = pair[1], _one_each(pair)
    if not isinstance(targets, Tensor) or targets.is_floating_point():
        return ones
    return (targets != ignored).double().reshape(len(ones), -1).sum(1)


def _one(_: Pair) -> float:
    return 1.0


def _one_each(pair: Pair) -> Tensor:
    samples = samples_in(pair)
    if samples is None:
        raise ValueError(
            f"count: {_why_uncounted(pair)}, so that its samples cannot be counted; give count=, a function from a "
            "batch to how much its mean loss counts for"
        )
    return torch.ones(samples, dtype=torch.float64, device="cpu")


def _why_uncounted(pair: Pair) -> str:
    leaves = tree_leaves(pair)
    if any(isinstance(leaf, OfSamples) for leaf in leaves):
        return "a batch holds a list of dicts, one for each sample, which is not cut"
    if others := [leaf for leaf in leaves if not isinstance(leaf, Tensor)]:
        return f"a batch holds a {type(others[0]).__name__}, which is no tensor"
    if any(leaf.layout != torch.strided for leaf in leaves):
        return "a batch holds a sparse tensor, which is not cut into samples (tensor.to_dense() is)"
    return "the tensors of a batch do not share their first size"


def _entries(pair: Pair) -> Tensor:
    """The number of entries in each sample's targets, over which the loss is a mean."""
    ones = _one_each(pair)
    return ones * (pair[1].numel() / max(1, len(ones))) if isinstance(pair[1], Tensor) else ones


def _places_of(loss: Any, pair: Pair) -> Tensor:
    """For each sample, the sum over places that are not ignored of the weights of their classes."""
    targets, ones = pair[1], _one_each(pair)
    if not isinstance(targets, Tensor):
        return ones
    if targets.is_floating_point():
        # the targets are probabilities, with the classes along the second axis
        return ones * targets[0, 0].numel() if targets.ndim > 1 else ones
    kept = targets != loss.ignore_index
    weights = kept.double()
    if loss.weight is not None:
        of_class = loss.weight.to(targets.device, torch.float64)
        # a label that is no class is refused once the model's classes are known
        classes = torch.where(kept, targets, 0).clamp(0, len(of_class) - 1)
        weights = torch.where(kept, of_class[classes], 0.0)
    return weights.reshape(len(ones), -1).sum(1)


def check_that_it_is_a_mean(counting: Counting) -> None:
    """Refuses a loss that is a sum, where draws of samples are compared.

    Raises:
        ValueError: the loss is a sum.
    """
    if counting.is_sum:
        raise ValueError(
            "objective: its loss is a sum, which grows with the samples; make the Objective with reduction='mean'"
        )
