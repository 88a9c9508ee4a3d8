"""fit(): the epoch loop, with history, checkpoint and exact resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
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
from ncsam.checkpoint import Trained, load_checkpoint, save_checkpoint
from ncsam.datasets import Loaded, Samples, Split, as_samples
from ncsam.defined_mean import mean_of_defined
from ncsam.dynamics import Recorder
from ncsam.epoch import Seeds, StepSettings, TrainedEpoch, now, train_epoch
from ncsam.evaluation import EVALUATION_METRICS, LOSS_METRICS, Evaluated, evaluate, unit_of_loss
from ncsam.hidden_state import HiddenState
from ncsam.history import History
from ncsam.label_noise import NoisyLabels
from ncsam.methods.known_losses import is_sum
from ncsam.methods.method import Method
from ncsam.methods.training_set import TrainingSet
from ncsam.probes import Probe
from ncsam.random_state import borrowed_generators
from ncsam.ranks import Ranks, Share
from ncsam.training_checks import (
    check_losses,
    check_settings,
    check_that_it_trains,
    checked_classes,
    single_samples_named,
)
from ncsam.training_modes import left_in_evaluation_mode, warn_of_trained_parts
from ncsam.training_numbers import TrainingNumbers
from ncsam.training_settings import Settings, settings_of
from ncsam.unheld_weights import unheld_weights_frozen

METRICS = {
    **EVALUATION_METRICS,
    "learning_rate": ("", "learning rate of the epoch, of the optimizer's first parameter group"),
    "seconds": ("s", "time spent in training since the start, evaluation not counted"),
    "gradients": ("batch gradients", "gradients spent in training steps since the start"),
    "perturbation_norm": (
        "",
        "norm of what is added to the weights for a step's second gradient, mean over the epoch's steps that add "
        "something",
    ),
    **ALIGNMENT_METRICS,
}
"""Name -> (unit, description) of each number that `fit` records in every epoch."""


TrainingData = Split | Loaded | MapDataset[Any] | DataLoader[Any]
"""Samples in memory, or a map-style dataset. A DataLoader or `Loaded` says how a dataset is read."""

OnEpoch = Callable[[int, Mapping[str, float], nn.Module], None]
"""(epochs finished, metrics of the last one by name, the model) -> None."""


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
    number. The caller's random state stays as it was. An evaluation moves no state of the loss, except what the loss
    rebinds by `global` or `nonlocal`. Dropout draws from torch's global generators. Therefore `fit` in several threads
    trains one epoch at a time, and other threads should draw from generators of their own.

    A run that was killed and is called again with the same arguments ends with the same weights, bit for bit, on the
    same kind of device with the same number of threads. The checkpoint also holds numbers, tensors and generators that
    are plain attributes of modules and losses, if they moved. A GPU needs `torch.use_deterministic_algorithms(True)`
    for that, because some of torch's gradients there are sums in any order.

    If the model is in DistributedDataParallel and all ranks have the same samples, the samples are dealt out anew in
    each epoch. If the ranks have different samples, each trains on its own. The history is of the samples of all ranks,
    and equal on all ranks. Rank 0 alone writes the checkpoint. At each epoch's end all ranks get the BatchNorm
    statistics of rank 0.

    Args:
        method: fills `.grad`. `fit` sets its `progress` to epoch / epochs, where the first epoch is 1. Autocast and
            loss scaling are those of `method.passes`. Modules in evaluation mode within a network in training mode,
            such as a frozen BatchNorm after `model.train()` and `norm.eval()`, stay in it in all epochs. A network that
            is in evaluation mode as a whole is trained as a whole.
        optimizer: over `method.parameters()`. It must hold a parameter of each network, and of a loss that has
            trainable ones. Others stay as they are and count as frozen: no method perturbs or penalizes them.
        train: inputs of the training set, best on the model's device; other batches are copied there. Its targets are
            not read. A map-style dataset is read batch by batch; `Loaded` says how. A DataLoader gives its workers,
            but the order of the samples follows from the seed.
        labels: observed labels to learn from, and clean ones to measure against: int64 (n,), or (n, ...) for classes
            of positions, such as tokens and pixels, with outputs (batch, classes, ...). Labels that the loss ignores
            are no part of accuracies.
        held_out: samples for the history's test loss and accuracy; they are never trained on. The items of a dataset
            are pairs (input, target), and are read once before the training. Targets are whole numbers of any type, of
            the shape of the predictions, outputs.argmax(1).
        epochs: number of epochs.
        batch_size: on each rank. The last batch of an epoch may be smaller, or larger by one: BatchNorm cannot take a
            single sample, so a last single sample joins the batch before.
        seed: of the order of samples; at least 0.
        scheduler: of this optimizer, stepped once an epoch, so that it counts epochs; `build_schedule` makes one by
            name.
        augmentation: of training images in memory, drawn anew each epoch; a dataset augments by itself.
        mixup_alpha: mixes each batch, see `mixup`; the loss must take class probabilities.
        redraw: `"never"`: training sees `labels.observed` in every epoch. `"step"`: in each step the labels of the
            batch are drawn anew from the model of the noise (`NoisyLabels.redrawn`), at the same rate. The history's
            numbers about observed labels are then about `labels.observed`, which is one more draw.
        max_gradient_norm: before each step, a longer gradient of a network's weights that the optimizer steps is scaled
            down to this norm, above 0.
        alignment_batches: number of batches at the beginning of each epoch in which the perturbations are compared with
            those from true labels (the mean of `ALIGNMENT_METRICS`). Each batch costs one forward and four backward
            passes; the training stays the same. NaN with mixup, because mixed batches have no true labels.
        probes: other measurements, and their epochs.
        record_samples: whether the history gets the `TrainingDynamics` of every training sample, in 10 bytes a sample
            and epoch. They cost no further pass, and the checkpoint holds them too.
        checkpoint: file with the state after each epoch, from which a training resumes. It is written whole or not at
            all.
        fingerprint: of everything that decides the result and is not among the settings, such as the samples. A
            checkpoint with another fingerprint is refused. So is one of other settings: seed, batch size, mixup,
            redrawing, gradient norm, augmentation, labels, precision, micro-batches, and the kinds of method, loss,
            optimizer and scheduler with their options. More epochs may be asked for where neither the scheduler nor
            the method (`Method.follows_progress`) depends on their number.
        on_epoch: called with the number of finished epochs, the metrics of the last one by name, and the model; also
            once when a training resumes; on each rank.

    Raises:
        TypeError: data or labels of another type, or a number that is none.
        ValueError: a number out of range, sizes or labels that do not fit, a loss that fails, samples that hold NaN or
            infinity, an optimizer that misses a network or the loss, a scheduler of another optimizer, a checkpoint of
            other settings, or ranks with unequal numbers of steps.
        RuntimeError: another rank raised something.
        CheckpointError: a checkpoint that cannot be read; nothing was changed yet. Or, after the first epoch, a state
            that a resumed training could not read.
    """
    ranks = Ranks.of(method.model)
    device = next(method.model.parameters()).device
    with ranks.together():
        numbers = TrainingNumbers.checked(
            epochs, batch_size, seed, alignment_batches, mixup_alpha, max_gradient_norm
        )
        epochs, batch_size, seed = numbers.epochs, numbers.batch_size, numbers.seed
        samples, held_out_samples = (
            as_samples(name, data, batch_size) for name, data in (("train", train), ("held_out", held_out))
        )
        check_that_it_trains(method, optimizer, scheduler, epochs)
        check_settings(samples, labels, numbers.alignment_batches, redraw, augmentation)
        labels = labels.to(device)
        classes = checked_classes(method, samples, labels, held_out_samples, mixes=mixup_alpha is not None)
        check_losses(method, samples, labels, held_out_samples, batch_size)
        warn_of_trained_parts(method.networks())
        settings = _step_settings(method, numbers, augmentation, classes, redraw)
        begun: Settings = {}
        if checkpoint is not None:
            begun = settings_of(method, optimizer, scheduler, labels, numbers, redraw, augmentation)
    samples = _normalized_once(samples, augmentation)
    held_out_samples = _normalized_once(held_out_samples)
    share = Share.of(ranks, samples, labels.observed, labels.clean)
    share.check_steps(len(samples), batch_size)
    of_held_out = Share.of(ranks, held_out_samples, held_out_samples.targets)
    evaluated = Evaluated(samples, share), Evaluated(held_out_samples, of_held_out)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    rows: list[dict[str, float]] = []
    recorder = Recorder(evaluated[0].of_all(labels.observed)) if record_samples else None
    trained = Trained(method, optimizer, scheduler, recorder, HiddenState.of(method))
    if checkpoint is not None and ranks.on_first(checkpoint.exists):
        rows = load_checkpoint(checkpoint, fingerprint, begun, trained, ranks)
        _tell(ranks, on_epoch, rows, method)

    method.epoch_share = 1 / epochs
    while len(rows) < epochs and not _diverged(rows):
        epoch = len(rows) + 1
        method.progress = epoch / epochs
        learning_rate = float(optimizer.param_groups[0]["lr"])
        seeds = Seeds.of(seed, epoch, ranks.rank)
        gradients_before = method.gradient_count
        steps = _train(method, optimizer, evaluated[0], labels, settings, seeds)
        ranks.share_buffers([*method.networks(), *method.predictors()])
        seconds = steps.seconds + _step_schedule(scheduler, device)
        row = {
            **_measured(method, evaluated, labels, recorder, seeds),
            "learning_rate": learning_rate,
            "gradients": method.gradient_count - gradients_before,
            **_means_over(ranks, {**steps.metrics, "seconds": seconds}),
            **_probed(ranks, probes, epoch, unheld_weights_frozen(method, optimizer, steps=False)),
        }
        for total in ("seconds", "gradients"):
            row[total] += rows[-1][total] if rows else 0.0
        rows.append(ranks.from_first(row))
        if checkpoint is not None:
            save_checkpoint(checkpoint, fingerprint, begun, trained, rows, ranks)
        _tell(ranks, on_epoch, rows, method)
    return _history(rows, probes, method, recorder)


def _step_settings(
    method: Method, numbers: TrainingNumbers, augmentation: Augmentation | None, classes: int, redraw: str
) -> StepSettings:
    return StepSettings(
        numbers.batch_size,
        augmentation,
        numbers.mixup_alpha,
        classes,
        redraw == "step",
        numbers.max_gradient_norm,
        0 if numbers.mixup_alpha is not None else numbers.alignment_batches,
        left_in_evaluation_mode(method.networks()),
    )


def _normalized_once(samples: Samples, augmentation: Augmentation | None = None) -> Samples:
    # augmentation takes the images as they are stored
    if isinstance(samples, Split) and augmentation is None:
        return samples.normalized_once()
    return samples


def _train(
    method: Method,
    optimizer: torch.optim.Optimizer,
    train: Evaluated,
    labels: NoisyLabels,
    settings: StepSettings,
    seeds: Seeds,
) -> TrainedEpoch:
    """Trains for an epoch, with what the method does before it."""
    prepared = _prepare(method, optimizer, train, labels, settings.batch_size, seeds)
    with single_samples_named(), unheld_weights_frozen(method, optimizer):
        steps = train_epoch(method, optimizer, train.samples, labels, train.share, settings, seeds)
    return replace(steps, seconds=steps.seconds + prepared)


def _step_schedule(scheduler: LRScheduler | None, device: torch.device) -> float:
    """Steps the schedule. Returns the seconds that this takes."""
    started = now(device)
    if scheduler is not None:
        scheduler.step()
    return now(device) - started


def _measured(
    method: Method,
    evaluated: tuple[Evaluated, Evaluated],
    labels: NoisyLabels,
    recorder: Recorder | None,
    seeds: Seeds,
) -> dict[str, float]:
    """The metrics after an epoch. A model that draws in evaluation mode draws from the epoch's seed."""
    train, held_out = evaluated
    with borrowed_generators(labels.observed.device, seeds.rank):
        return evaluate(method, train, labels, held_out, recorder)


def _prepare(
    method: Method,
    optimizer: torch.optim.Optimizer,
    train: Evaluated,
    labels: NoisyLabels,
    batch_size: int,
    seeds: Seeds,
) -> float:
    """Lets the method look at the whole training set before an epoch. Returns the seconds that this takes."""
    device = next(method.model.parameters()).device
    started = now(device)
    training_set = TrainingSet(
        train.of_all(labels.observed),
        lambda network: train.outputs_of(network, method.passes.autocast_dtype),
        batch_size,
        seeds.method,
        optimizer,
    )
    # a model may draw in evaluation mode too
    with borrowed_generators(device, seeds.method):
        method.before_epoch(training_set)
    return now(device) - started


def _means_over(ranks: Ranks, own: dict[str, float]) -> dict[str, float]:
    """One number from the numbers of all ranks about their own batches."""
    found = ranks.gathered(own)
    return {name: mean_of_defined([of_rank[name] for of_rank in found]) for name in own}


def _history(
    rows: list[dict[str, float]], probes: Sequence[Probe], method: Method, recorder: Recorder | None
) -> History:
    described = METRICS | {name: text for probe in probes for name, text in probe.metrics.items()}
    reduced = "sum over the samples of the" if is_sum(method.loss_fn) else "mean"
    for name, text in LOSS_METRICS.items():
        described[name] = unit_of_loss(method), f"{reduced} {text}"
    # a checkpoint of an earlier version lacks the metrics that are newer
    metrics = {
        name: np.array([row.get(name, float("nan")) for row in rows], dtype=np.float64) for name in described
    }
    return History(metrics, _diverged(rows), described, recorder.dynamics if recorder else None)


def _tell(ranks: Ranks, on_epoch: OnEpoch | None, rows: list[dict[str, float]], method: Method) -> None:
    """Calls `on_epoch` with the last row."""
    if on_epoch:
        with ranks.together():
            on_epoch(len(rows), rows[-1], method.model)


def _probed(
    ranks: Ranks, probes: Sequence[Probe], epoch: int, unheld_frozen: AbstractContextManager[None]
) -> dict[str, float]:
    values: dict[str, float] = {}
    with ranks.together(), unheld_frozen:
        for probe in probes:
            values |= probe.measure() if epoch in probe.epochs else dict.fromkeys(probe.metrics, float("nan"))
    # plain floats, because a checkpoint with NumPy's could be read only by executing code in it
    return {name: float(value) for name, value in values.items()}


def _diverged(rows: list[dict[str, float]]) -> bool:
    return bool(rows) and not np.isfinite(rows[-1]["train_loss"])
