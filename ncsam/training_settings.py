"""The settings of a training that a checkpoint keeps, so that no other training resumes from it."""

from __future__ import annotations

import hashlib
import inspect
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
from ncsam.training_numbers import TrainingNumbers

Settings = dict[str, Any]
"""Name -> plain value, such as `"method.rho"` -> 0.05. Tensors are there as digests."""

OF_THE_COMPUTATION = ("foreach", "fused", "capturable", "differentiable")
"""Options of torch's optimizers that say how a step is computed, and not which step."""

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

    The number of epochs is none of them, because a training may go on for more. A method's setting is its attribute of
    that name, or the argument that it was made with.
    """
    found: Settings = {
        "seed": numbers.seed,
        "batch_size": numbers.batch_size,
        "mixup_alpha": numbers.mixup_alpha,
        "max_gradient_norm": numbers.max_gradient_norm,
        "redraw": redraw,
        "augmentation": None if augmentation is None else repr(augmentation),
        "labels": _digest(labels.observed, labels.clean),
        "method": type(method).__name__,
        **_named("method", {**method.arguments, **_attributes(method, method.arguments)}),
        **_of_loss(method.loss_fn),
        "optimizer": type(optimizer).__name__,
        "scheduler": None if scheduler is None else type(scheduler).__name__,
    }
    return found | _of_groups(optimizer.param_groups)


def check_same_settings(path: Path, before: Settings, now: Settings, groups: list[dict[str, Any]]) -> None:
    """Checks that a checkpoint belongs to a training with these settings.

    What only one of the two has is passed over: it is newer than the other's version.

    Args:
        path: of the checkpoint.
        before: settings in the checkpoint.
        now: settings of the training that is to resume.
        groups: the optimizer's `param_groups` in the checkpoint, whose learning rate may have moved since the start.

    Raises:
        ValueError: a setting is another one.
    """
    moved = _of_groups(groups)
    other = [
        name
        for name, value in now.items()
        if name in before and value != before[name] and not (name in moved and value == moved[name])
    ]
    if not other:
        return
    told = [f"{name} was {before[name]!r} and is {now[name]!r}" for name in other[:MOST_NAMED]]
    more = f", and {len(other) - MOST_NAMED} more differ" if len(other) > MOST_NAMED else ""
    raise ValueError(
        f"checkpoint: {path} belongs to a training with other settings: {', '.join(told)}{more}; give the same "
        "settings, delete the file to train anew, or name another file"
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
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return Ellipsis if Ellipsis in parts else parts
    return _digest(value) if isinstance(value, Tensor) else Ellipsis


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(content.numpy().data)
    return digest.hexdigest()[:16]
