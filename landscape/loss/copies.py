"""The copies of a model and a loss that an Objective keeps."""

from __future__ import annotations

import copy
import warnings
from typing import Any

from torch import nn

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without wrappers that change only how it runs: `torch.compile`, DataParallel, DistributedDataParallel.

    They cannot be differentiated twice, or not be called with other weights.
    """
    while True:
        inner: Any = getattr(model, "_orig_mod", None)
        if isinstance(model, PARALLEL):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def constant_copy(loss_fn: nn.Module) -> nn.Module:
    """A copy of a loss whose own parameters are constants."""
    constant = copied("loss_fn", loss_fn)
    if learned := sum(p.numel() for p in loss_fn.parameters() if p.requires_grad):
        warnings.warn(
            f"loss_fn: its own {learned} trainable parameters are constants of the measured loss, not variables; put "
            "them into the model to make them variables, or freeze them by requires_grad_(False)",
            stacklevel=3,
        )
    return constant.requires_grad_(False)


def copied(field: str, module: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        TypeError: the module cannot be copied; naming the field.
    """
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"{field}: Objective keeps a copy, but it cannot be copied: {error}") from error
