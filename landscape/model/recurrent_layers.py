"""Lets recurrent layers be differentiated in evaluation mode, and twice, on a GPU too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from landscape.fx.threads import HeldSetting


def avoid_cudnn_recurrence(model: nn.Module) -> None:
    """Turns off cuDNN's kernels for the LSTMs, GRUs and RNNs of a model, in place.

    These kernels have a gradient only in training mode, and no second derivative. torch's own kernels are slower and
    have both.
    """
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.forward = partial(_without_cudnn, module.forward)


def _without_cudnn(forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with _WITHOUT_CUDNN.held():
        return forward(*arguments, **options)


@contextmanager
def _cudnn_disabled() -> Iterator[None]:
    backend: Any = torch.backends.cudnn
    before, backend.enabled = backend.enabled, False
    try:
        yield
    finally:
        backend.enabled = before


_WITHOUT_CUDNN = HeldSetting(_cudnn_disabled)
