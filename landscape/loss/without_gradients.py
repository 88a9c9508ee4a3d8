"""Forward passes of which no gradient is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def without_gradients(differentiates: bool) -> Iterator[None]:
    """Within, torch records nothing.

    Args:
        differentiates: the forward pass takes derivatives by itself, as that of a PINN does, so that torch must record.
    """
    # tensors of inference mode, in which the caller may be, cannot be differentiated
    with (
        torch.inference_mode(False) if differentiates else nullcontext(),
        torch.set_grad_enabled(differentiates),
    ):
        yield
