"""Probabilities of samples from networks that were not trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ncsam.datasets import Split
from ncsam.evaluation import predict
from ncsam.label_noise import NoisyLabels
from ncsam.methods.method import Method
from ncsam.training import fit

Builder = Callable[[int], tuple[Method, torch.optim.Optimizer]]
"""Number of the fold -> a new network's method and its optimizer."""


def cross_validated_probabilities(
    train: Split,
    labels: NoisyLabels,
    build: Builder,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    folds: int = 5,
    checkpoints: str | Path | None = None,
    on_fold: Callable[[int], None] | None = None,
) -> Tensor:
    """Trains one network for each fold on the other folds, and asks it for its own.

    Folds have the same share of every observed label, as far as numbers allow. A training that was killed goes on
    where it was, if `checkpoints` is given.

    Args:
        train: inputs of the training set.
        labels: the observed ones are trained on.
        build: makes the network of a fold; with the same seed for all folds, or not.
        epochs, batch_size, seed: of each training, as for `fit`.
        folds: how many.
        checkpoints: folder of the trainings' states.
        on_fold: called with the number of finished folds.

    Returns:
        float32 (n, classes), on the CPU.

    Raises:
        ValueError: fewer than two folds, or more than samples; a training that diverged.
    """
    if not 2 <= folds <= len(train):
        raise ValueError(f"folds: must be from 2 to the {len(train)} samples, got {folds}")
    of_sample = _folds(labels.observed, folds, seed)
    digest = hashlib.sha256(labels.observed.cpu().numpy().tobytes()).hexdigest()
    parts: list[tuple[Tensor, Tensor]] = []
    for fold in range(folds):
        inside = torch.nonzero(of_sample == fold).flatten().to(train.pixels.device)
        others = torch.nonzero(of_sample != fold).flatten().to(train.pixels.device)
        held_out = Split(train.pixels[inside], labels.observed[inside], train.mean, train.std)
        method, optimizer = build(fold)
        history = fit(
            method,
            optimizer,
            train.take(others),
            labels.take(others),
            held_out,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            checkpoint=None if checkpoints is None else Path(checkpoints) / f"fold-{fold}.pt",
            fingerprint=f"fold {fold} of {folds}, seed {seed}, {batch_size} a batch, labels {digest}",
        )
        outputs = predict(method.model, held_out, autocast_dtype=method.passes.autocast_dtype)
        if history.diverged or not bool(outputs.isfinite().all()):
            raise ValueError(
                f"build: the training without fold {fold} diverged; take a smaller learning rate"
            )
        parts.append((inside.cpu(), outputs.float().softmax(1).cpu()))
        if on_fold is not None:
            on_fold(fold + 1)
    found = torch.empty(len(train), parts[0][1].shape[1])
    for inside, chances in parts:
        found[inside] = chances
    return found


def _folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """The fold of each sample, int64 (n,): drawn, and dealt out label by label."""
    labels = labels.cpu()
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_label = drawn[labels[drawn].argsort(stable=True)]
    found = torch.empty(len(labels), dtype=torch.int64)
    found[by_label] = torch.arange(len(labels)) % folds
    return found
