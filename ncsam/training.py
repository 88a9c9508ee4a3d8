"""fit(): the epoch loop, with history, checkpoint and exact resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as MapDataset

from ncsam.alignment import ALIGNMENT_METRICS
from ncsam.augmentation import Augmentation
from ncsam.checkpoint import load_checkpoint, save_checkpoint
from ncsam.datasets import Loaded, Split
from ncsam.dynamics import Recorder, TrainingDynamics
from ncsam.epoch import Seeds, StepSettings, mean_of_defined, now, train_epoch
from ncsam.evaluation import EVALUATION_METRICS, LOSS_METRICS, Evaluated, evaluate, unit_of_loss
from ncsam.label_noise import NoisyLabels
from ncsam.methods.method import Method
from ncsam.methods.training_set import TrainingSet
from ncsam.probes import Probe
from ncsam.ranks import Ranks, Share
from ncsam.training_checks import (
    as_samples,
    check_settings,
    check_that_it_is_not_longer,
    check_that_it_trains,
    checked_classes,
)

METRICS = {
    **EVALUATION_METRICS,
    "learning_rate": ("", "learning rate of the epoch"),
    "seconds": ("s", "time spent in training steps since the start, evaluation not counted"),
    "gradients": ("batch gradients", "gradients spent in training steps since the start"),
    "perturbation_norm": (
        "",
        "norm of what is added to the weights for a step's second gradient, mean over the epoch's steps that add "
        "something",
    ),
    **ALIGNMENT_METRICS,
}
"""Name -> (unit, description) of what `fit` records of every epoch."""


TrainingData = Split | Loaded | MapDataset[Any] | DataLoader[Any]
"""Samples in memory, or a map-style dataset, by itself or with the DataLoader that says how it is read."""

OnEpoch = Callable[[int, Mapping[str, float], nn.Module], None]
"""(epochs finished, metrics of the last one by name, the model) -> None."""


@dataclass(frozen=True)
class History:
    """What happened in training.

    Attributes:
        metrics: name -> float64 (epochs,), one value an epoch, NaN where undefined.
        diverged: the outputs or the loss stopped being finite; training ended with that epoch.
        described: name of each metric -> (unit, description): `METRICS` and those of the probes.
        dynamics: losses, margins and predictions of every training sample, if `record_samples` asked for them.
    """

    metrics: dict[str, np.ndarray]
    diverged: bool
    described: dict[str, tuple[str, str]]
    dynamics: TrainingDynamics | None = None

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return len(self.metrics["train_loss"])


def fit(
    method: Method,
    optimizer: torch.optim.Optimizer,
    train: TrainingData,
    labels: NoisyLabels,
    held_out: TrainingData,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    scheduler: LRScheduler | None = None,
    augmentation: Augmentation | None = None,
    mixup_alpha: float | None = None,
    redraw: Literal["never", "step"] = "never",
    max_gradient_norm: float | None = None,
    alignment_batches: int = 0,
    probes: Sequence[Probe] = (),
    record_samples: bool = False,
    checkpoint: str | Path | None = None,
    fingerprint: str = "",
    on_epoch: OnEpoch | None = None,
) -> History:
    """Trains `method.model` on the observed labels.

    All draws of an epoch (order, augmentation, mixup, redrawn labels, dropout) come from `seed` and the epoch's
    number; the caller's random state stays as it was. Dropout draws from torch's global generators: `fit` in several
    threads trains one epoch at a time, and other threads should draw from generators of their own. A run that was
    killed and is called again with the same arguments ends with the same weights, bit for bit, on the same kind of
    device with the same number of threads; on a GPU where `torch.use_deterministic_algorithms(True)` was said, as some
    of torch's gradients there are sums in any order.

    With a model in DistributedDataParallel, ranks that were given the same samples deal them out anew in each epoch;
    other ranks train on their own samples each. All ranks have the same history, of the samples of all, and rank 0
    alone writes the checkpoint. BatchNorm's statistics are those of rank 0 at each epoch's end.

    Args:
        method: fills `.grad`; its `progress` is set to epoch / epochs, epochs counted from 1. Autocast and loss
            scaling are those of `method.passes`.
        optimizer: over `method.parameters()`.
        train: inputs of the training set, best on the model's device, to which batches go otherwise; its targets are
            not read. A map-style dataset is read batch by batch, `Loaded` says how; of a DataLoader its workers are
            taken, while the order is the seed's.
        labels: observed labels to learn from, and clean ones to measure against.
        held_out: samples on which the history's test loss and accuracy are taken; never trained on. Of a dataset the
            items are pairs (input, target), which are read once before the training.
        epochs: how many.
        batch_size: the last batch of an epoch may be smaller, or larger by one: a last single sample, which
            BatchNorm cannot take, goes with the batch before. On several ranks, that of each.
        seed: of the order of samples.
        scheduler: stepped once an epoch; `build_schedule` makes one by name.
        augmentation: of training images in memory, drawn anew each epoch; a dataset augments by itself.
        mixup_alpha: mixes each batch, see `mixup`; the loss must take class probabilities.
        redraw: `"never"`: training sees `labels.observed` in every epoch. `"step"`: in each step the labels of the
            batch are drawn anew from the model of the noise (`NoisyLabels.redrawn`), at the same rate. All that the
            history says of observed labels is then said of `labels.observed`, one draw that training itself need
            not see.
        max_gradient_norm: a network's gradient longer than that is scaled down to it before each step.
        alignment_batches: in how many of each epoch's first batches to compare the perturbations with the one
            from true labels (`ALIGNMENT_METRICS`, their mean); costs one forward and three backward passes
            each, and leaves the training as it is without. NaN with mixup, whose batches have no true labels.
        probes: what else to measure, and in which epochs.
        record_samples: whether the history gets the `TrainingDynamics` of every training sample, in 10 bytes a sample
            and epoch. They cost no further pass, and are in the checkpoint.
        checkpoint: file that holds the state after each epoch, for resuming; written whole or not at all.
        fingerprint: of everything that decides the result; a checkpoint with another one is refused.
        on_epoch: called with the number of finished epochs, the metrics of the last one by name, and the model; also
            once at a resume, and on each rank.

    Raises:
        TypeError: data or labels of another type.
        ValueError: sizes or labels that do not fit, an optimizer of another model, or a checkpoint of other
            settings, or ranks with unequal numbers of steps.
        RuntimeError: another rank raised something.
        CheckpointError: a checkpoint that cannot be read; nothing was changed yet.
    """
    ranks = Ranks.of(method.model)
    device = next(method.model.parameters()).device
    with ranks.together():
        samples, held_out_samples = (
            as_samples(name, data, batch_size) for name, data in (("train", train), ("held_out", held_out))
        )
        check_that_it_trains(method, optimizer, scheduler)
        check_settings(samples, labels, epochs, batch_size, alignment_batches, redraw, augmentation)
        labels = labels.to(device)
        settings = StepSettings(
            batch_size,
            augmentation,
            mixup_alpha,
            checked_classes(method, samples, labels, held_out_samples),
            redraw == "step",
            max_gradient_norm,
            0 if mixup_alpha is not None else alignment_batches,
        )
    share = Share.of(ranks, samples, labels.observed, labels.clean)
    share.check_steps(len(samples), batch_size)
    of_held_out = Share.of(ranks, held_out_samples, held_out_samples.targets)
    evaluated = Evaluated(samples, share), Evaluated(held_out_samples, of_held_out)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    rows: list[dict[str, float]] = []
    recorder = Recorder(evaluated[0].of_all(labels.observed)) if record_samples else None
    if checkpoint is not None and ranks.on_first(checkpoint.exists):
        rows = load_checkpoint(checkpoint, fingerprint, method, optimizer, scheduler, ranks, recorder)
        check_that_it_is_not_longer(checkpoint, len(rows), epochs)
        if on_epoch:
            on_epoch(len(rows), rows[-1], method.model)

    method.epoch_share = 1 / epochs
    while len(rows) < epochs and not _diverged(rows):
        epoch = len(rows) + 1
        method.progress = epoch / epochs
        learning_rate = optimizer.param_groups[0]["lr"]
        seeds = Seeds.of(seed, epoch, ranks.rank)
        method.before_epoch(_training_set(method, evaluated[0], labels, batch_size, seeds))
        steps = train_epoch(method, optimizer, samples, labels, share, settings, seeds)
        ranks.share_buffers(method.networks())
        if scheduler is not None:
            started = now(device)
            scheduler.step()
            steps["seconds"] += now(device) - started
        row = {
            **evaluate(method, evaluated[0], labels, evaluated[1], recorder),
            "learning_rate": learning_rate,
            "gradients": method.gradient_count,
            **_means_over(ranks, steps),
            **_probed(probes, epoch),
        }
        row["seconds"] += rows[-1]["seconds"] if rows else 0.0
        rows.append(ranks.from_first(row))
        if checkpoint is not None:
            save_checkpoint(checkpoint, fingerprint, method, optimizer, scheduler, rows, ranks, recorder)
        if on_epoch:
            on_epoch(epoch, rows[-1], method.model)
    return _history(rows, probes, method, recorder)


def _training_set(
    method: Method, train: Evaluated, labels: NoisyLabels, batch_size: int, seeds: Seeds
) -> TrainingSet:
    return TrainingSet(
        train.of_all(labels.observed),
        lambda network: train.outputs_of(network, method.passes.autocast_dtype),
        batch_size,
        seeds.method,
    )


def _means_over(ranks: Ranks, steps: dict[str, float]) -> dict[str, float]:
    """What each rank says of its own batches, as one number."""
    found = ranks.gathered(steps)
    return {name: mean_of_defined([of_rank[name] for of_rank in found]) for name in steps}


def _history(
    rows: list[dict[str, float]], probes: Sequence[Probe], method: Method, recorder: Recorder | None
) -> History:
    described = METRICS | {name: text for probe in probes for name, text in probe.metrics.items()}
    for name in LOSS_METRICS:
        described[name] = (unit_of_loss(method), described[name][1])
    # a checkpoint of an earlier version lacks the metrics that are newer
    metrics = {
        name: np.array([row.get(name, float("nan")) for row in rows], dtype=np.float64) for name in described
    }
    return History(metrics, _diverged(rows), described, recorder.dynamics if recorder else None)


def _probed(probes: Sequence[Probe], epoch: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for probe in probes:
        values |= probe.measure() if epoch in probe.epochs else dict.fromkeys(probe.metrics, float("nan"))
    # plain floats: NumPy's would make a checkpoint that cannot be read without executing it
    return {name: float(value) for name, value in values.items()}


def _diverged(rows: list[dict[str, float]]) -> bool:
    return bool(rows) and not np.isfinite(rows[-1]["train_loss"])
