"""What `fit` refuses before its first step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from ncsam.augmentation import Augmentation
from ncsam.datasets import Loaded, Samples, Split
from ncsam.datasets.finite import check_finite
from ncsam.evaluation import outputs_of_first
from ncsam.label_noise import NoisyLabels
from ncsam.methods.known_losses import ignored_label
from ncsam.methods.method import Method
from ncsam.methods.sharded import is_sharded
from ncsam.optimizer_checks import (
    check_is_an_optimizer,
    check_that_it_can_be_stepped,
    check_that_it_trains_every_network,
    check_that_it_trains_the_loss,
)

NO_DATASETS = (Tensor, np.ndarray, tuple, dict, str)
"""Types that have items, but whose items are no samples."""


def as_samples(name: str, data: Any, batch_size: int) -> Samples:
    """The caller's data as samples.

    Raises:
        TypeError: data of another type.
        ValueError: a DataLoader that sets the order or the batch size.
    """
    if isinstance(data, Split | Loaded):
        return data
    is_loader = isinstance(data, DataLoader)
    is_dataset = hasattr(data, "__getitem__") and not isinstance(data, NO_DATASETS)
    if not is_loader and not is_dataset:
        raise TypeError(
            f"{name}: must be a Split, a map-style dataset or a DataLoader, got {type(data).__name__}; "
            "ncsam.Split(inputs, targets) makes a Split of tensors"
        )
    if is_loader and name == "train" and data.batch_size != batch_size:
        raise ValueError(
            f"batch_size: is {batch_size}, but {data.batch_size} in the DataLoader; give the same"
        )
    try:
        return Loaded(data, batch_size=batch_size)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("data:", f"{name}:", 1)) from None


def check_that_it_trains(
    method: Method, optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None
) -> None:
    """Raises ValueError for a sharded model, and for an optimizer that misses a network or the loss or is not stepped.

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
    check_that_it_can_be_stepped(optimizer, scheduler)


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

    Samples in memory are checked to be finite before the model sees them.

    On a GPU a label out of range would end the process with a message that names neither label nor cause. A method that
    chooses samples by their class has no use for ignored labels, and a label that is none cannot be mixed.
    """
    _check_samples(train, held_out)
    classes = outputs_of_first(method, train).shape[1]
    takes_ignored = method.takes_classes_of_positions or method.takes_ignored_labels
    leaves_out = not method.requires.classes or takes_ignored
    ignored = ignored_label(method.loss_fn) if leaves_out else None
    for name, targets in (
        ("observed", labels.observed),
        ("clean", labels.clean),
        ("held_out", held_out.targets),
    ):
        _check_range(name, targets, classes, None if mixes and name == "observed" else ignored)
    if ignored is not None and bool((labels.observed == ignored).all()):
        raise ValueError(
            f"labels: every observed label is {ignored}, which the loss ignores; nothing can be learned"
        )
    return classes


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
