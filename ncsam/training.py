"""fit(): the epoch loop, with history, checkpoint and exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ncsam.alignment import ALIGNMENT_METRICS, perturbation_alignment
from ncsam.augmentation import Augmentation
from ncsam.checkpoint import load_checkpoint, save_checkpoint
from ncsam.datasets import Split
from ncsam.dynamics import Recorder, TrainingDynamics
from ncsam.evaluation import EVALUATION_METRICS, LOSS_METRICS, evaluate, predict, unit_of_loss
from ncsam.label_noise import NoisyLabels
from ncsam.losses import mixup
from ncsam.methods.method import Method
from ncsam.methods.passes import piece_sizes
from ncsam.methods.tensor_lists import norm
from ncsam.optimizer_checks import check_that_it_can_be_stepped
from ncsam.probes import Probe
from ncsam.random_state import borrowed_generators

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
    train: Split,
    labels: NoisyLabels,
    held_out: Split,
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

    Args:
        method: fills `.grad`; its `progress` is set to epoch / epochs, epochs counted from 1. Autocast and loss
            scaling are those of `method.passes`.
        optimizer: over `method.parameters()`.
        train: inputs of the training set, best on the model's device, to which batches go otherwise; its targets are
            not read.
        labels: observed labels to learn from, and clean ones to measure against.
        held_out: samples on which the history's test loss and accuracy are taken; never trained on.
        epochs: how many.
        batch_size: the last batch of an epoch may be smaller, or larger by one: a last single sample, which
            BatchNorm cannot take, goes with the batch before.
        seed: of the order of samples.
        scheduler: stepped once an epoch; `build_schedule` makes one by name.
        augmentation: of the training images, drawn anew each epoch.
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
            once at a resume.

    Raises:
        TypeError: data or labels of another type.
        ValueError: sizes or labels that do not fit, an optimizer of another model, or a checkpoint of other
            settings.
        CheckpointError: a checkpoint that cannot be read; nothing was changed yet.
    """
    _check_types(train, labels, held_out)
    _check_that_it_trains(method, optimizer)
    check_that_it_can_be_stepped(optimizer, scheduler)
    _check(train, labels, epochs, batch_size, alignment_batches, redraw)
    device = next(method.model.parameters()).device
    labels = labels.to(device)
    classes = _checked_classes(method.model, train, labels, held_out)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    rows: list[dict[str, float]] = []
    recorder = Recorder(labels.observed) if record_samples else None
    if checkpoint is not None and checkpoint.exists():
        rows = load_checkpoint(checkpoint, fingerprint, method, optimizer, scheduler, recorder)
        _check_that_it_is_not_longer(checkpoint, len(rows), epochs)
        if on_epoch:
            on_epoch(len(rows), rows[-1], method.model)

    method.epoch_share = 1 / epochs
    while len(rows) < epochs and not _diverged(rows):
        epoch = len(rows) + 1
        method.progress = epoch / epochs
        learning_rate = optimizer.param_groups[0]["lr"]
        seeds = np.random.SeedSequence([seed, epoch]).generate_state(4, np.uint64)
        with borrowed_generators(device, int(seeds[0])):
            # not before: another thread's epoch may have to end first
            started = _now(device)
            steps = _train_epoch(
                method,
                optimizer,
                train,
                labels,
                batch_size,
                augment=_seeded(augmentation, train.pixels.device, int(seeds[1])),
                mix=_mixing(mixup_alpha, classes, int(seeds[2])),
                redrawn_by=torch.Generator().manual_seed(int(seeds[3])) if redraw == "step" else None,
                max_gradient_norm=max_gradient_norm,
                alignment_batches=0 if mixup_alpha is not None else alignment_batches,
            )
        if scheduler is not None:
            scheduler.step()
        seconds = _now(device) - started - steps.pop("alignment_seconds")
        rows.append(
            {
                **evaluate(method, train, labels, held_out, recorder),
                "learning_rate": learning_rate,
                "seconds": (rows[-1]["seconds"] if rows else 0.0) + seconds,
                "gradients": method.gradient_count,
                **steps,
                **_probed(probes, epoch),
            }
        )
        if checkpoint is not None:
            save_checkpoint(checkpoint, fingerprint, method, optimizer, scheduler, rows, recorder)
        if on_epoch:
            on_epoch(epoch, rows[-1], method.model)
    return _history(rows, probes, method, recorder)


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


def _check_types(train: Split, labels: NoisyLabels, held_out: Split) -> None:
    for name, split in (("train", train), ("held_out", held_out)):
        if not isinstance(split, Split):
            raise TypeError(
                f"{name}: must be a Split, got {type(split).__name__}; ncsam.Split(inputs, targets) makes one"
            )
    if not isinstance(labels, NoisyLabels):
        raise TypeError(
            f"labels: must be NoisyLabels, got {type(labels).__name__}; ncsam.human_labels(clean, observed) makes them"
        )


def _check_that_it_trains(method: Method, optimizer: torch.optim.Optimizer) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held for parameter in method.parameters()):
        raise ValueError("optimizer: holds no parameter of this method; make it over method.parameters()")


def _check_that_it_is_not_longer(checkpoint: Path, trained: int, epochs: int) -> None:
    if trained > epochs:
        raise ValueError(f"checkpoint: {checkpoint} has {trained} epochs already, {epochs} were asked for")


def _check(
    train: Split, labels: NoisyLabels, epochs: int, batch_size: int, alignment_batches: int, redraw: str
) -> None:
    if len(train) != len(labels.observed):
        raise ValueError(f"labels: {len(labels.observed)} labels for {len(train)} training samples")
    for name, value, least in (
        ("epochs", epochs, 1),
        ("batch_size", batch_size, 1),
        ("alignment_batches", alignment_batches, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: must be at least {least}, got {value}")
    if redraw not in ("never", "step"):
        raise ValueError(f"redraw: must be 'never' or 'step', got {redraw!r}")
    if redraw == "step":
        # refuses labels of no known model
        labels.redrawn(torch.zeros(1, dtype=torch.int64, device=labels.clean.device), torch.Generator())


def _checked_classes(model: nn.Module, train: Split, labels: NoisyLabels, held_out: Split) -> int:
    """The model's number of outputs, once all labels are known to lie below it.

    On a GPU a label out of range would end the process with a message that names neither label nor cause.
    """
    outputs = predict(model, train.batch(torch.zeros(1, dtype=torch.int64, device=train.pixels.device)))
    classes = outputs.shape[-1]
    for name, targets in (
        ("observed", labels.observed),
        ("clean", labels.clean),
        ("held_out", held_out.targets),
    ):
        outside = torch.nonzero((targets < 0) | (targets >= classes)).flatten()
        if len(outside):
            first = int(outside[0])
            raise ValueError(
                f"labels: the {name} label of sample {first} is {int(targets[first])}; the model has {classes} "
                f"outputs, so labels must lie in 0..{classes - 1}"
            )
    return classes


Augment = Callable[[Tensor], Tensor]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _seeded(augmentation: Augmentation | None, device: torch.device, seed: int) -> Augment | None:
    if augmentation is None:
        return None
    return partial(augmentation, generator=torch.Generator(device).manual_seed(seed))


def _mixing(alpha: float | None, classes: int, seed: int) -> Mix | None:
    if alpha is None:
        return None
    return partial(mixup, classes=classes, alpha=alpha, generator=torch.Generator().manual_seed(seed))


def _train_epoch(
    method: Method,
    optimizer: torch.optim.Optimizer,
    train: Split,
    labels: NoisyLabels,
    batch_size: int,
    *,
    augment: Augment | None,
    mix: Mix | None,
    redrawn_by: torch.Generator | None,
    max_gradient_norm: float | None,
    alignment_batches: int,
) -> dict[str, float]:
    """One pass over the training set; returns the perturbations' mean norm, the first batches' alignment, its cost."""
    method.model.train()
    device = labels.observed.device
    order = torch.randperm(len(train)).to(train.pixels.device)
    compared: list[dict[str, float]] = []
    norms: list[Tensor] = []
    alignment_seconds = 0.0
    for step, indices in enumerate(order.split(piece_sizes(len(train), batch_size))):
        inputs, indices = (part.to(device) for part in (train.batch(indices, augment), indices))
        observed = labels.observed[indices] if redrawn_by is None else labels.redrawn(indices, redrawn_by)
        mixed = mix(inputs, observed) if mix else (inputs, observed)
        optimizer.zero_grad()
        method.backward(*mixed, indices)
        if method.ascent is not None:
            norms.append(norm(method.ascent.perturbation))
        if step < alignment_batches:
            started = _now(device)
            with borrowed_generators(device):
                alignment = perturbation_alignment(method, inputs, observed, labels.clean[indices], indices)
            compared.append(alignment)
            alignment_seconds += _now(device) - started
        _step(method, optimizer, max_gradient_norm)
    return {
        **{name: mean_of_defined([batch[name] for batch in compared]) for name in ALIGNMENT_METRICS},
        "perturbation_norm": torch.stack(norms).double().mean().item() if norms else float("nan"),
        "alignment_seconds": alignment_seconds,
    }


def _step(method: Method, optimizer: torch.optim.Optimizer, max_gradient_norm: float | None) -> None:
    scaler = method.passes.scaler
    if max_gradient_norm is not None:
        if scaler is not None:
            scaler.unscale_(optimizer)
        for network in method.networks():
            nn.utils.clip_grad_norm_(network.parameters(), max_gradient_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def _now(device: torch.device) -> float:
    """Seconds on a clock, once all work in hand on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def mean_of_defined(values: ArrayLike) -> float:
    """The mean of the values that are not NaN; NaN if all are."""
    numbers = np.asarray(values, dtype=np.float64)
    defined = numbers[~np.isnan(numbers)]
    return float(defined.mean()) if len(defined) else float("nan")


def _diverged(rows: list[dict[str, float]]) -> bool:
    return bool(rows) and not np.isfinite(rows[-1]["train_loss"])
