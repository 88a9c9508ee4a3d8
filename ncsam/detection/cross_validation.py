"""Probabilities of samples from networks that were not trained on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ncsam.datasets import Split
from ncsam.detection.fingerprint import training_fingerprint
from ncsam.evaluation import predicted_by
from ncsam.label_noise import NoisyLabels
from ncsam.methods.method import Method
from ncsam.methods.training_loss import remembers_samples
from ncsam.plain_numbers import with_plain_numbers
from ncsam.random_state import generator_from
from ncsam.training import fit


class DivergedError(ValueError):
    """The training without one of the folds diverged."""


Builder = Callable[[int], tuple[Method, torch.optim.Optimizer]]
"""Number of the fold -> a new network's method and its optimizer."""


@with_plain_numbers
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
    """Trains one network for each fold on the other folds, and predicts the fold by this network.

    Of methods that predict by an average of weights or by two networks, such as RegCE and DivideMix, these predict.

    Folds have the same share of every observed label, as nearly as their sizes allow. With `checkpoints`, a training
    that was killed goes on from its last epoch; then `build` must make the same initial weights each time.

    Args:
        train: inputs of the training set.
        labels: labels; the networks are trained on the observed ones.
        build: makes the method of a fold. Its networks and its optimizer must be new ones for each fold, or a network
            would be tested on samples that it was trained on before. Their seeds may be equal or not.
        epochs, batch_size, seed: of each training, as for `fit`.
        folds: number of folds.
        checkpoints: folder for the states of the trainings.
        on_fold: called with the number of finished folds.

    Returns:
        float32 (n, classes), on the CPU.

    Raises:
        ValueError: fewer than two folds, or more than samples; checkpoints of other trainings; trained weights, an
            optimizer or a loss with a memory of samples that an earlier fold had too.
        DivergedError: a training diverged.
    """
    if not 2 <= folds <= len(train):
        raise ValueError(f"folds: must be from 2 to the {len(train)} samples, got {folds}")
    of_sample = folds_of(labels.observed, folds, seed)
    parts: list[tuple[Tensor, Tensor]] = []
    # weak, so that the networks of earlier folds need no memory
    earlier = WeakIdKeyDictionary()
    for fold in range(folds):
        inside = torch.nonzero(of_sample == fold).flatten().to(train.pixels.device)
        others = torch.nonzero(of_sample != fold).flatten().to(train.pixels.device)
        held_out = Split(train.pixels[inside], labels.observed[inside], train.mean, train.std)
        method, optimizer = build(fold)
        _check_that_all_is_new(method, optimizer, fold, earlier)
        fingerprint = training_fingerprint(
            method, optimizer, train, labels.observed, of_sample, fold, seed, batch_size, epochs
        )
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
            fingerprint=fingerprint,
        )
        outputs = predicted_by(method, held_out)
        if history.diverged or not bool(outputs.isfinite().all()):
            raise DivergedError(
                f"build: the training without fold {fold} diverged; take a smaller learning rate"
            )
        parts.append((inside.cpu(), outputs.float().softmax(1).cpu()))
        if on_fold is not None:
            on_fold(fold + 1)
    found = torch.empty(len(train), parts[0][1].shape[1], device="cpu")
    for inside, chances in parts:
        found[inside] = chances
    return found


def _check_that_all_is_new(
    method: Method, optimizer: torch.optim.Optimizer, fold: int, earlier: WeakIdKeyDictionary
) -> None:
    """Raises ValueError for what an earlier fold trained, and notes what this one trains.

    Frozen weights may be shared.
    """
    trained: list[object] = [weight for weight in method.parameters() if weight.requires_grad]
    own = [*trained, optimizer, *([method.loss_fn] if remembers_samples(method.loss_fn) else [])]
    for part in own:
        if part in earlier:
            kind = "weights" if isinstance(part, Tensor) else type(part).__name__
            raise ValueError(
                f"build: fold {fold} has the {kind} of an earlier fold, which learned the labels that this fold is to "
                "predict; make a new network, method, loss and optimizer in each call, and copy a pretrained network "
                "by copy.deepcopy before it is trained"
            )
    for part in own:
        earlier[part] = fold


def folds_of(labels: Tensor, folds: int, seed: int) -> Tensor:
    """The fold of each sample, int64 (n,): drawn, and dealt out label by label."""
    labels = labels.cpu()
    # not the bare seed, with which the wrong labels may have been drawn
    drawn = torch.randperm(len(labels), generator=generator_from(seed, folds), device="cpu")
    by_label = drawn[labels[drawn].argsort(stable=True)]
    found = torch.empty(len(labels), dtype=torch.int64, device="cpu")
    found[by_label] = torch.arange(len(labels), device="cpu") % folds
    return found
