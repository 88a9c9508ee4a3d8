"""What `fit` refuses before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ncsam.augmentation import Augmentation
from ncsam.datasets import Loaded, Samples, Split
from ncsam.datasets.finite import check_finite
from ncsam.evaluated_loss import loss_at_rest
from ncsam.evaluation import classes_in, outputs_of_first
from ncsam.label_noise import NoisyLabels
from ncsam.methods.known_losses import ignored_label
from ncsam.methods.loss_checks import checked_loss
from ncsam.methods.method import Method
from ncsam.methods.sharded import is_sharded
from ncsam.optimizer_checks import (
    check_is_an_optimizer,
    check_that_it_can_be_stepped,
    check_that_it_trains_every_network,
    check_that_it_trains_the_loss,
)
from ncsam.schedule_checks import check_that_it_counts_epochs
from ncsam.unheld_weights import check_that_none_is_perturbed


def check_that_it_trains(
    method: Method, optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None, epochs: int
) -> None:
    """Raises ValueError for a sharded model, and for an optimizer that misses a network or the loss or is not stepped.

    So it does for a scheduler of another optimizer, and for one that counts batches.

    Raises TypeError if the object is no optimizer.
    """
    check_is_an_optimizer(optimizer)
    if is_sharded(method.model):
        raise ValueError(
            "method: FSDP2 (fully_shard) shards its model, which fit neither measures nor writes to a checkpoint; call "
            "method.backward in a loop of your own, or train in DistributedDataParallel"
        )
    check_that_it_trains_every_network(method, optimizer)
    check_that_it_trains_the_loss(method.loss_fn, optimizer)
    check_that_none_is_perturbed(method, optimizer)
    check_that_it_can_be_stepped(optimizer, scheduler)
    check_that_it_counts_epochs(scheduler, epochs)


def check_settings(
    train: Samples,
    labels: NoisyLabels,
    alignment_batches: int,
    redraw: str,
    augmentation: Augmentation | None,
) -> None:
    """Raises TypeError for labels of another type, and ValueError for settings that contradict each other."""
    if not isinstance(labels, NoisyLabels):
        raise TypeError(
            f"labels: must be NoisyLabels, got {type(labels).__name__}; ncsam.human_labels(clean, observed) makes them"
        )
    if len(train) != len(labels.observed):
        raise ValueError(f"labels: {len(labels.observed)} labels for {len(train)} training samples")
    if alignment_batches and (labels.observed.ndim > 1 or not labels.has_both.all()):
        raise ValueError(
            "alignment_batches: compares gradients of rightly and wrongly labeled samples, and these labels are of "
            "positions or in part ignored; give alignment_batches=0"
        )
    if redraw not in ("never", "step"):
        raise ValueError(f"redraw: must be 'never' or 'step', got {redraw!r}")
    if redraw == "step":
        # raises for labels whose noise model is not known
        labels.redrawn(torch.zeros(1, dtype=torch.int64, device=labels.clean.device), torch.Generator())
    if augmentation is not None and isinstance(train, Loaded):
        raise ValueError("augmentation: a dataset augments its samples by itself; put it into its transform")


def _check_samples(train: Samples, held_out: Samples) -> None:
    """Raises ValueError for samples in memory that are not finite. Others are checked when their batch is read.

    The mean loss would be NaN from the first step on, as that of a training that diverges.
    """
    for name, samples in (("train", train), ("held_out", held_out)):
        if isinstance(samples, Split):
            check_finite(name, samples.pixels)


def checked_classes(
    method: Method, train: Samples, labels: NoisyLabels, held_out: Samples, *, mixes: bool
) -> int:
    """The model's number of classes. All labels are checked to lie below it, or to be ones that the loss ignores.

    Labels must have the shape of predictions, or each sample's would be compared with those of the others.

    Samples in memory are checked to be finite before the model sees them.

    On a GPU a label out of range would end the process with a message that names neither label nor cause. A method that
    chooses samples by their class has no use for ignored labels, and a label that is none cannot be mixed.
    """
    _check_samples(train, held_out)
    outputs = outputs_of_first(method, train)
    classes = outputs.shape[1]
    takes_ignored = method.takes_classes_of_positions or method.takes_ignored_labels
    leaves_out = not method.requires.classes or takes_ignored
    ignored = ignored_label(method.loss_fn) if leaves_out else None
    for name, targets, scores in (
        ("observed", labels.observed, outputs),
        ("clean", labels.clean, outputs),
        ("held_out", classes_in(held_out), outputs_of_first(method, held_out)),
    ):
        _check_shape(name, targets, scores)
        _check_range(name, targets, classes, None if mixes and name == "observed" else ignored)
    if ignored is not None and bool((labels.observed == ignored).all()):
        raise ValueError(
            f"labels: every observed label is {ignored}, which the loss ignores; nothing can be learned"
        )
    return classes


def check_losses(
    method: Method, train: Samples, labels: NoisyLabels, held_out: Samples, batch_size: int
) -> None:
    """Raises ValueError if the loss fails on held-out samples, as many as in a batch: after an epoch, work is lost."""
    try:
        _check_loss(method, held_out, classes_in(held_out), batch_size)
    except ValueError as error:
        # an error that training samples have too is one of the loss
        _check_loss(method, train, labels.observed, batch_size)
        raise ValueError(f"held_out: {error}") from error


def _check_loss(method: Method, samples: Samples, targets: Tensor, batch_size: int) -> None:
    outputs = outputs_of_first(method, samples, batch_size)
    with loss_at_rest(method, outputs.device) as loss_fn:
        checked_loss(loss_fn, outputs, targets[: len(outputs)].to(outputs.device))


@contextmanager
def single_samples_named() -> Iterator[None]:
    """A block with training passes, in which BatchNorm's error about a batch of one sample names its remedy."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "batch_size: BatchNorm has no statistics of a single sample, and a batch holds no more; take batches and a "
            f"training set of at least 2 samples on each rank, or a model without BatchNorm: {error}"
        ) from error


def _check_shape(name: str, targets: Tensor, outputs: Tensor) -> None:
    """Raises ValueError for labels of another shape than what outputs (samples, classes, ...) predict."""
    predicted = outputs.shape[2:]
    if targets.shape[1:] == predicted and not targets.is_floating_point():
        return
    field = "held_out: its targets" if name == "held_out" else f"labels: the {name} ones"
    remedy = "give outputs (batch, classes, ...) with one column of scores for each label"
    if targets.ndim == 1:
        remedy = "give targets.long()" if not predicted else remedy
    elif targets.shape[1:] == outputs.shape[1:2]:
        remedy = "of rows with one number for each class, give the classes, targets.argmax(1)"
    elif targets.shape[1:].numel() == 1:
        remedy = "give targets.flatten()"
    raise ValueError(
        f"{field} are {targets.dtype} of shape {tuple(targets.shape)}, and must be classes, int64 of shape "
        f"{(len(targets), *predicted)}, as the model's outputs for one sample have the shape "
        f"{tuple(outputs.shape[1:])}; {remedy}"
    )


def _check_range(name: str, targets: Tensor, classes: int, ignored: int | None) -> None:
    is_outside = (targets < 0) | (targets >= classes)
    if ignored is not None:
        is_outside &= targets != ignored
    outside = torch.nonzero(is_outside)
    if len(outside):
        first = tuple(outside[0].tolist())
        place = f"sample {first[0]}" + "".join(f", position {index}" for index in first[1:])
        raise ValueError(
            f"labels: the {name} label of {place} is {int(targets[first])}; the model has {classes} "
            f"outputs, so labels must lie in 0..{classes - 1}"
        )
