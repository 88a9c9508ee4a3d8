"""One epoch of training: its batches, and a step for each."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ncsam.alignment import ALIGNMENT_METRICS, perturbation_alignment
from ncsam.augmentation import Augmentation
from ncsam.datasets import Samples, Split
from ncsam.defined_mean import mean_of_defined
from ncsam.label_noise import NoisyLabels
from ncsam.methods.batches import moved
from ncsam.methods.method import Method
from ncsam.methods.tensor_lists import norm, project_onto_ball
from ncsam.methods.training_loss import remembers_samples
from ncsam.mixed_pairs import mixup
from ncsam.optimizer_checks import held_by
from ncsam.random_state import borrowed_generators
from ncsam.ranks import Share
from ncsam.training_modes import set_modes

Augment = Callable[[Tensor], Tensor]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class StepSettings:
    """The settings of a step; see `fit`.

    Attributes:
        batch_size: number of samples in a step, on each rank.
        augmentation: augmentation of images in memory.
        mixup_alpha: parameter of mixup.
        classes: number of classes.
        redraws: whether labels are drawn anew in each step.
        max_gradient_norm: longer gradients are scaled down to this norm.
        alignment_batches: number of first batches in which perturbations are compared.
        resting: modules that stay in evaluation mode.
    """

    batch_size: int
    augmentation: Augmentation | None
    mixup_alpha: float | None
    classes: int
    redraws: bool
    max_gradient_norm: float | None
    alignment_batches: int
    resting: tuple[nn.Module, ...] = ()


@dataclass(frozen=True)
class Seeds:
    """The seeds of one epoch. All but `order` differ between ranks.

    Attributes:
        order: of the order of the samples; on rank 0 also of what its steps draw, such as masks of Dropout.
        rank: of what the steps draw on the other ranks, and of what a model draws in the evaluation.
        items: of the augmentation and of what a dataset draws as it is read.
        mixup: of the mixtures of samples.
        labels: of labels that are drawn anew in each step.
        method: of what is drawn while the method looks at the whole training set before the epoch.
    """

    order: int
    rank: int
    items: int
    mixup: int
    labels: int
    method: int

    @classmethod
    def of(cls, seed: int, epoch: int, rank: int) -> Seeds:
        """The seeds of an epoch, counted from 1."""
        order = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
        own = np.random.SeedSequence([seed, epoch, *([rank] if rank else [])]).generate_state(5, np.uint64)
        return cls(order, *map(int, own))


@dataclass(frozen=True)
class TrainedEpoch:
    """What an epoch tells.

    Attributes:
        metrics: the perturbations' mean norm, and the first batches' `ALIGNMENT_METRICS`, by name.
        seconds: time spent in the training itself, without the comparison of perturbations.
    """

    metrics: dict[str, float]
    seconds: float


def train_epoch(
    method: Method,
    optimizer: torch.optim.Optimizer,
    train: Samples,
    labels: NoisyLabels,
    share: Share,
    settings: StepSettings,
    seeds: Seeds,
) -> TrainedEpoch:
    """One pass over the training set."""
    device = labels.observed.device
    with share.ranks.agreement.announced(), borrowed_generators(device, seeds.order):
        # the clock starts here, because another thread's epoch may have to end first
        started = now(device)
        order = torch.randperm(len(train), device="cpu")
        # each rank has its own draws, such as masks of Dropout
        with borrowed_generators(device, seeds.rank) if share.ranks.rank else nullcontext():
            metrics, alignment_seconds = _steps(
                method, optimizer, train, labels, share, order, settings, seeds
            )
        if remembers_samples(method.loss_fn):
            share.merge(method.loss_fn, order)
        return TrainedEpoch(metrics, now(device) - started - alignment_seconds)


def _steps(
    method: Method,
    optimizer: torch.optim.Optimizer,
    train: Samples,
    labels: NoisyLabels,
    share: Share,
    order: Tensor,
    settings: StepSettings,
    seeds: Seeds,
) -> tuple[dict[str, float], float]:
    """The steps of an epoch. Returns what they tell by name, and the seconds of the comparison of perturbations."""
    pieces = share.pieces(order, settings.batch_size)
    set_modes(method.networks(), settings.resting)
    device = labels.observed.device
    place = train.pixels.device if isinstance(train, Split) else device
    augment = _seeded(settings.augmentation, place, seeds.items)
    mix = _mixing(settings, seeds.mixup)
    redrawn_by = torch.Generator().manual_seed(seeds.labels) if settings.redraws else None
    compared: list[dict[str, float]] = []
    norms: list[Tensor] = []
    alignment_seconds = 0.0
    batches = train.batches(pieces, augment, seed=seeds.items)
    if not isinstance(train, Split):
        # samples in memory are there; files may not be
        batches = share.ranks.read_together(batches)
    for step, (batch, piece) in enumerate(zip(batches, pieces, strict=True)):
        inputs, indices = moved(batch, device), piece.to(device)
        observed = labels.observed[indices] if redrawn_by is None else labels.redrawn(indices, redrawn_by)
        mixed_inputs, mixed_targets = mix(inputs, observed) if mix else (inputs, observed)
        _clear_gradients(method, optimizer)
        method.backward(mixed_inputs, mixed_targets, indices)
        if method.ascent is not None:
            norms.append(norm(method.ascent.perturbation))
        if step < settings.alignment_batches:
            started = now(device)
            with borrowed_generators(device):
                alignment = perturbation_alignment(method, inputs, observed, labels.clean[indices], indices)
            compared.append(alignment)
            alignment_seconds += now(device) - started
        optimizer_step(method, optimizer, settings.max_gradient_norm)
        method.after_step()
    metrics = {
        **{name: mean_of_defined([batch[name] for batch in compared]) for name in ALIGNMENT_METRICS},
        "perturbation_norm": torch.stack(norms).double().mean().item() if norms else float("nan"),
    }
    return metrics, alignment_seconds


def _clear_gradients(method: Method, optimizer: torch.optim.Optimizer) -> None:
    """Clears the gradients of the weights that the optimizer does not step too, or theirs would pile up."""
    optimizer.zero_grad()
    for weight in method.parameters():
        weight.grad = None


def optimizer_step(method: Method, optimizer: torch.optim.Optimizer, max_gradient_norm: float | None) -> None:
    """A step along the gradients in `.grad`. Longer ones than `max_gradient_norm` are scaled down to this norm.

    The norm is that of the weights of a network which the optimizer steps. Without any gradient there is no step.
    """
    # a scaler fails on a step without any gradient, as of a batch of which no sample is kept
    if all(weight.grad is None for group in optimizer.param_groups for weight in group["params"]):
        return
    scaler = method.passes.scaler
    if max_gradient_norm is not None:
        if scaler is not None:
            scaler.unscale_(optimizer)
        held = held_by(optimizer)
        for network in method.networks():
            # torch's own clipping makes zero of a gradient whose squares float32 cannot hold
            stepped = [
                _numbers_of_gradient(weight)
                for weight in network.parameters()
                if id(weight) in held and weight.grad is not None
            ]
            if stepped:
                project_onto_ball(stepped, max_gradient_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def _numbers_of_gradient(weight: nn.Parameter) -> Tensor:
    """The numbers in `.grad`, which shares their memory; of a sparse one, those that are not zero."""
    assert weight.grad is not None
    if not weight.grad.is_sparse:
        return weight.grad
    # a row that was added twice must be one row, or the norm would be another
    weight.grad = weight.grad.coalesce()
    return weight.grad.values()


def now(device: torch.device) -> float:
    """Seconds on a clock, read after all pending work on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _seeded(augmentation: Augmentation | None, device: torch.device, seed: int) -> Augment | None:
    if augmentation is None:
        return None
    return partial(augmentation, generator=torch.Generator(device).manual_seed(seed))


def _mixing(settings: StepSettings, seed: int) -> Mix | None:
    if settings.mixup_alpha is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    return partial(mixup, classes=settings.classes, alpha=settings.mixup_alpha, generator=generator)
