"""Forward passes without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def without_gradients(differentiates: bool) -> Iterator[None]:
    """Inside the block torch records no gradients, unless a forward pass needs them.

    Args:
        differentiates: whether a forward pass takes derivatives, like that of a PINN, so that torch must record.
    """
    # the caller may be in inference mode, whose tensors cannot be differentiated
    with (
        torch.inference_mode(False) if differentiates else nullcontext(),
        torch.set_grad_enabled(differentiates),
    ):
        yield
