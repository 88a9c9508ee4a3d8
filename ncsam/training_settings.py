"""The settings of a training that a checkpoint keeps, so that no other training resumes from it."""

from __future__ import annotations

import hashlib
import inspect
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ncsam.augmentation import Augmentation
from ncsam.label_noise import NoisyLabels
from ncsam.methods.arguments import PLAIN
from ncsam.methods.method import Method
from ncsam.tensor_bytes import tensor_bytes
from ncsam.training_numbers import TrainingNumbers

Settings = dict[str, Any]
"""Name -> plain value, such as `"method.rho"` -> 0.05. Tensors are there as digests."""

POSITION_IN_A_SCHEDULE = (
    "last_epoch",
    "T_cur",
    "T_i",
    "_step_count",
    "_last_lr",
    "_is_initial",
    "_get_lr_called_within_step",
)
"""Attributes of torch's schedulers that say how far they are. Their `base_lrs` are the optimizer's rates."""

OF_THE_COMPUTATION = ("foreach", "fused", "capturable", "differentiable")
"""Options of torch's optimizers that say how a step is computed, and not which step."""

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""What Python writes of an object without a text of its own; it differs between two processes."""

MOST_NAMED = 3
"""Differences that an error names."""


def settings_of(
    method: Method,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    labels: NoisyLabels,
    numbers: TrainingNumbers,
    redraw: str,
    augmentation: Augmentation | None,
) -> Settings:
    """The settings of a training that is about to begin or to resume.

    A training may go on for more epochs where nothing follows their number, so that their number is not always kept. A
    method's setting is its attribute of that name, or the argument that it was made with.
    """
    passes = method.passes
    found: Settings = {
        "epochs": numbers.epochs,
        "seed": numbers.seed,
        "batch_size": numbers.batch_size,
        "mixup_alpha": numbers.mixup_alpha,
        "max_gradient_norm": numbers.max_gradient_norm,
        "redraw": redraw,
        "autocast_dtype": None if passes.autocast_dtype is None else str(passes.autocast_dtype),
        "scales_loss": passes.scaler is not None,
        "micro_batch_size": passes.micro_batch_size,
        "average_over_ranks": passes.average_over_ranks,
        "augmentation": None if augmentation is None else ADDRESS.sub("", repr(augmentation)),
        **_named("augmentation", dict(getattr(augmentation, "__dict__", {}))),
        "labels": _digest(labels.observed, labels.clean),
        "method": type(method).__name__,
        **_named("method", {**method.arguments, **_attributes(method, method.arguments)}),
        **_of_loss(method.loss_fn),
        "optimizer": type(optimizer).__name__,
        **_of_weights(method, optimizer),
        **_of_groups(optimizer.param_groups),
    }
    if scheduler is None:
        return {**found, "scheduler": None}
    return {**found, **_kinds_and_factors(scheduler, numbers.epochs), **_of_schedule(scheduler.state_dict())}


def check_same_settings(
    path: Path,
    before: Settings,
    now: Settings,
    groups: list[dict[str, Any]],
    schedule: Mapping[str, Any] | None,
) -> None:
    """Checks that a checkpoint belongs to a training with these settings.

    What only one of the two has is passed over: it is newer than the other's version.

    Args:
        path: of the checkpoint.
        before: settings in the checkpoint.
        now: settings of the training that is to resume.
        groups: the optimizer's `param_groups` in the checkpoint, whose learning rate may have moved since the start.
        schedule: the scheduler's state in the checkpoint, which may have moved too.

    Raises:
        ValueError: a setting is another one.
    """
    moved = _of_groups(groups) | _of_schedule(schedule or {})
    other = [
        name
        for name, value in now.items()
        if name in before and value != before[name] and not (name in moved and value == moved[name])
    ]
    if not other:
        return
    told = [f"{name} was {before[name]!r} and is {now[name]!r}" for name in other[:MOST_NAMED]]
    more = f", and {len(other) - MOST_NAMED} more differ" if len(other) > MOST_NAMED else ""
    by_epochs = any(name == "epochs" or name.startswith("scheduler.") for name in other)
    cause = " (more epochs are welcome where neither the method nor the schedule follows their number)"
    raise ValueError(
        f"checkpoint: {path} belongs to a training with other settings: {', '.join(told)}{more}"
        f"{cause if by_epochs else ''}; give the same settings, delete the file to train anew, or name another file"
    )


def _of_groups(groups: list[dict[str, Any]]) -> Settings:
    """The options of each group of parameters. Its learning rate is the one before any scheduler changed it."""
    found: Settings = {}
    for number, group in enumerate(groups):
        options = {
            name: value
            for name, value in group.items()
            if name not in ("params", "initial_lr", *OF_THE_COMPUTATION)
        }
        if "initial_lr" in group:
            options["lr"] = group["initial_lr"]
        found |= _named("optimizer" if number == 0 else f"optimizer group {number}", options)
    return found


def _of_weights(method: Method, optimizer: torch.optim.Optimizer) -> Settings:
    """Which of the method's parameters each group holds, in order, because an optimizer knows them by their place."""
    places = {id(parameter): place for place, parameter in enumerate(method.parameters())}
    held = [[places.get(id(weight), -1) for weight in group["params"]] for group in optimizer.param_groups]
    digest = hashlib.sha256(repr(held).encode()).hexdigest()[:8]
    return {"optimizer.weights": f"{sum(map(len, held))} of {len(places)} ({digest})"}


def warn_of_new_weights(begun: Settings, method: Method, optimizer: torch.optim.Optimizer) -> None:
    """Warns where the optimizer holds other weights than at the beginning, which a resumed training would not know."""
    if begun["optimizer.weights"] != _of_weights(method, optimizer)["optimizer.weights"]:
        warnings.warn(
            "checkpoint: the optimizer holds other weights than at the beginning, as after add_param_group in "
            "on_epoch, so that this training cannot be resumed; give the optimizer all groups at the beginning, freeze "
            "those of later epochs by requires_grad_(False), and let on_epoch thaw them from its epoch on",
            stacklevel=4,
        )


def _of_schedule(state: Mapping[str, Any], owner: str = "scheduler") -> Settings:
    """The options in the state of a scheduler, and in those of the schedulers that it is made of."""
    found: Settings = {}
    for number, part in enumerate(state.get("_schedulers", ())):
        found |= _of_schedule(part, f"{owner}.{number}")
    left_out = (*POSITION_IN_A_SCHEDULE, "_schedulers", "base_lrs")
    return found | _named(owner, {name: value for name, value in state.items() if name not in left_out})


def _kinds_and_factors(scheduler: LRScheduler, epochs: int, owner: str = "scheduler") -> Settings:
    """What a state leaves out: the kinds of schedulers, and what functions of the epoch give in each epoch."""
    found: Settings = {owner: type(scheduler).__name__}
    for number, part in enumerate(getattr(scheduler, "_schedulers", ())):
        found |= _kinds_and_factors(part, epochs, f"{owner}.{number}")
    for number, factor in enumerate(getattr(scheduler, "lr_lambdas", ())):
        for epoch in range(epochs):
            # not all are defined in each epoch, such as those that read a list
            with suppress(Exception):
                found[f"{owner}.lr_lambdas.{number} of epoch {epoch}"] = _plain(factor(epoch))
    return found


def _of_loss(loss_fn: Any) -> Settings:
    """The name of the loss, and its options where they are attributes."""
    if isinstance(loss_fn, partial):
        return {**_of_loss(loss_fn.func), **_named("loss_fn", loss_fn.keywords)}
    if not isinstance(loss_fn, nn.Module):
        return {"loss_fn": getattr(loss_fn, "__name__", type(loss_fn).__name__)}
    options = inspect.signature(type(loss_fn).__init__).parameters
    return {"loss_fn": type(loss_fn).__name__, **_named("loss_fn", _attributes(loss_fn, options))}


def _attributes(part: object, names: Any) -> Settings:
    """Those attributes with these names that can be settings."""
    found = {name: getattr(part, name, Ellipsis) for name in names}
    return {name: value for name, value in found.items() if _plain(value) is not Ellipsis}


def _named(owner: str, values: Settings) -> Settings:
    plain = {f"{owner}.{name}": _plain(value) for name, value in values.items()}
    return {name: value for name, value in plain.items() if value is not Ellipsis}


def _plain(value: object) -> Any:
    """The value as a checkpoint can hold it; `...` for what is no setting."""
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0):
        value = value.item()
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return Ellipsis if Ellipsis in parts else parts
    return _digest(value) if isinstance(value, Tensor) else Ellipsis


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:16]
