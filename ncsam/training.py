"""fit(): the epoch loop, with history, checkpoint and exact resume."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ncsam.alignment import ALIGNMENT_METRICS, perturbation_alignment
from ncsam.datasets import Split
from ncsam.label_noise import NoisyLabels
from ncsam.memorization import memorized_share, recovered_share
from ncsam.methods.passes import LossFunction
from ncsam.methods.plain import Plain

EVALUATION_METRICS = {
    "train_loss": ("nat", "mean training loss with observed labels, in evaluation mode at the epoch's end"),
    "train_accuracy": ("", "accuracy on the training set against observed labels"),
    "train_clean_accuracy": ("", "accuracy on the training set against true labels"),
    "memorized": ("", "share of wrongly labelled training samples predicted as their wrong label"),
    "recovered": ("", "share of wrongly labelled training samples predicted as their true label"),
    "test_loss": ("nat", "mean loss on held-out samples"),
    "test_accuracy": ("", "accuracy on held-out samples"),
}
METRICS = {
    **EVALUATION_METRICS,
    "learning_rate": ("", "learning rate of the epoch"),
    "seconds": ("s", "time spent in training steps since the start, evaluation not counted"),
    "gradients": ("batch gradients", "gradients spent in training steps since the start"),
    **ALIGNMENT_METRICS,
}
"""Name -> (unit, description) of what `fit` records of every epoch."""


class CheckpointError(ValueError):
    """A checkpoint file that cannot be read."""


@dataclass(frozen=True)
class History:
    """What happened in training.

    Attributes:
        metrics: name of each of `METRICS` -> float64 (epochs,), one value an epoch, NaN where undefined.
        diverged: the outputs or the loss stopped being finite; training ended with that epoch.
    """

    metrics: dict[str, np.ndarray]
    diverged: bool

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return len(self.metrics["train_loss"])


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, *, batch_size: int = 2000) -> Tensor:
    """Outputs (n, classes) in evaluation mode; the model's mode ends as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return torch.cat([model(chunk) for chunk in inputs.split(batch_size)])
    finally:
        for module, mode in modes:
            module.training = mode


def fit(
    method: Plain,
    optimizer: torch.optim.Optimizer,
    train: Split,
    labels: NoisyLabels,
    held_out: Split,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    scheduler: LRScheduler | None = None,
    alignment_batches: int = 0,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    on_epoch: Callable[[int], None] | None = None,
) -> History:
    """Trains `method.model` on the observed labels.

    All draws of an epoch (order, dropout) come from `seed` and the epoch's number; the caller's random state
    stays as it was. A run that was killed and is called again with the same arguments ends with the same
    weights, bit for bit, on the same kind of device with the same number of threads.

    Args:
        method: fills `.grad`; its `progress` is set to epoch / epochs, epochs counted from 1.
        optimizer: over the model's parameters.
        train: inputs of the training set; its targets are not read.
        labels: observed labels to learn from, and clean ones to measure against.
        held_out: samples on which the history's test loss and accuracy are taken; never trained on.
        epochs: how many.
        batch_size: the last batch of an epoch may be smaller, or larger by one: a last single sample, which
            BatchNorm cannot take, goes with the batch before.
        seed: of the order of samples.
        scheduler: stepped once an epoch.
        alignment_batches: in how many of each epoch's first batches to compare the perturbations with the one
            from true labels (`ALIGNMENT_METRICS`, their mean); costs one forward and three backward passes
            each, and leaves the training as it is without.
        checkpoint: file that holds the state after each epoch, for resuming; written whole or not at all.
        fingerprint: of everything that decides the result; a checkpoint with another one is refused.
        on_epoch: called with the number of finished epochs, also once at a resume.

    Raises:
        ValueError: sizes that do not fit, or a checkpoint of other settings.
        CheckpointError: a checkpoint that cannot be read; nothing was changed yet.
    """
    _check(train, labels, epochs, batch_size, alignment_batches)
    rows: list[dict[str, float]] = []
    if checkpoint is not None and checkpoint.exists():
        rows = _resume(checkpoint, fingerprint, method, optimizer, scheduler)
        if len(rows) > epochs:
            raise ValueError(
                f"checkpoint: {checkpoint} has {len(rows)} epochs already, {epochs} were asked for"
            )
        if on_epoch:
            on_epoch(len(rows))

    devices = [train.inputs.device] if train.inputs.is_cuda else []
    while len(rows) < epochs and not _diverged(rows):
        epoch = len(rows) + 1
        started = _now(train.inputs.device)
        method.progress = epoch / epochs
        learning_rate = optimizer.param_groups[0]["lr"]
        with torch.random.fork_rng(devices=devices):
            epoch_seed = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
            torch.random.default_generator.manual_seed(int(epoch_seed))
            if devices:
                torch.cuda.manual_seed(int(epoch_seed))
            alignment = _train_epoch(method, optimizer, train, labels, batch_size, alignment_batches)
        if scheduler is not None:
            scheduler.step()
        seconds = _now(train.inputs.device) - started - alignment.pop("alignment_seconds")
        rows.append(
            {
                **_evaluate(method.model, method.loss_fn, train, labels, held_out),
                "learning_rate": learning_rate,
                "seconds": (rows[-1]["seconds"] if rows else 0.0) + seconds,
                "gradients": method.gradient_count,
                **alignment,
            }
        )
        if checkpoint is not None:
            _save(checkpoint, fingerprint, method, optimizer, scheduler, rows)
        if on_epoch:
            on_epoch(epoch)

    metrics = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in METRICS}
    return History(metrics, diverged=_diverged(rows))


def _check(train: Split, labels: NoisyLabels, epochs: int, batch_size: int, alignment_batches: int) -> None:
    if len(train) != len(labels.observed):
        raise ValueError(f"labels: {len(labels.observed)} labels for {len(train)} training samples")
    for name, value, least in (
        ("epochs", epochs, 1),
        ("batch_size", batch_size, 1),
        ("alignment_batches", alignment_batches, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: must be at least {least}, got {value}")


def _train_epoch(
    method: Plain,
    optimizer: torch.optim.Optimizer,
    train: Split,
    labels: NoisyLabels,
    batch_size: int,
    alignment_batches: int,
) -> dict[str, float]:
    """One pass over the training set; returns the mean alignment of its first batches, and its cost."""
    method.model.train()
    order = torch.randperm(len(train)).to(train.inputs.device)
    compared: list[dict[str, float]] = []
    alignment_seconds = 0.0
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        # a single sample has no batch statistics
        batches[-2:] = [torch.cat(batches[-2:])]
    for step, indices in enumerate(batches):
        inputs, observed = train.inputs[indices], labels.observed[indices]
        optimizer.zero_grad()
        method.backward(inputs, observed, indices)
        if step < alignment_batches:
            started = _now(inputs.device)
            rho = getattr(method, "rho", None)
            with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
                alignment = perturbation_alignment(
                    method, inputs, observed, labels.clean[indices], rho, indices
                )
            compared.append(alignment)
            alignment_seconds += _now(inputs.device) - started
        optimizer.step()
    return {
        **{name: _mean_of_defined([batch[name] for batch in compared]) for name in ALIGNMENT_METRICS},
        "alignment_seconds": alignment_seconds,
    }


def _now(device: torch.device) -> float:
    """Seconds on a clock, once all work in hand on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _mean_of_defined(values: list[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _evaluate(
    model: nn.Module, loss_fn: LossFunction, train: Split, labels: NoisyLabels, held_out: Split
) -> dict[str, float]:
    train_outputs = predict(model, train.inputs)
    test_outputs = predict(model, held_out.inputs)
    # the predicted class of a NaN would be class 0: a diverged model has no accuracy, not a low one
    # (minus infinity is what a model that rules a class out gives it)
    if any((outputs.isnan() | outputs.isposinf()).any() for outputs in (train_outputs, test_outputs)):
        return dict.fromkeys(EVALUATION_METRICS, float("nan"))
    predictions = train_outputs.argmax(1)
    return {
        "train_loss": loss_fn(train_outputs, labels.observed).item(),
        "train_accuracy": _accuracy(predictions, labels.observed),
        "train_clean_accuracy": _accuracy(predictions, labels.clean),
        "memorized": memorized_share(predictions, labels),
        "recovered": recovered_share(predictions, labels),
        "test_loss": loss_fn(test_outputs, held_out.targets).item(),
        "test_accuracy": _accuracy(test_outputs.argmax(1), held_out.targets),
    }


def _accuracy(predictions: Tensor, targets: Tensor) -> float:
    return (predictions == targets).double().mean().item()


def _diverged(rows: list[dict[str, float]]) -> bool:
    return bool(rows) and not np.isfinite(rows[-1]["train_loss"])


def _save(
    path: Path,
    fingerprint: str,
    method: Plain,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    rows: list[dict[str, float]],
) -> None:
    state: dict[str, Any] = {
        "fingerprint": fingerprint,
        "model": method.model.state_dict(),
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler else None,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    torch.save(state, beside)
    os.replace(beside, path)


def _resume(
    path: Path,
    fingerprint: str,
    method: Plain,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
) -> list[dict[str, float]]:
    device = next(method.model.parameters()).device
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        whole = state.keys() >= {"fingerprint", "model", "method", "optimizer", "scheduler", "rows"}
    except Exception as error:  # a broken file may raise anything
        raise CheckpointError(f"checkpoint: {path} cannot be read; delete it to train anew") from error
    if not whole:
        raise CheckpointError(f"checkpoint: {path} is not one of fit(); delete it to train anew")
    if state["fingerprint"] != fingerprint:
        raise ValueError(f"checkpoint: {path} belongs to other settings; delete it or name another file")
    if (state["scheduler"] is None) != (scheduler is None):
        raise ValueError(
            f"checkpoint: {path} was written with another scheduler; delete it or name another file"
        )
    method.model.load_state_dict(state["model"])
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    if scheduler is not None:
        scheduler.load_state_dict(state["scheduler"])
    rows: list[dict[str, float]] = state["rows"]
    return rows
