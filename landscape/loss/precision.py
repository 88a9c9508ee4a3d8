"""Measuring in all of float32: neither TF32, which GPUs take for convolutions by default, nor the caller's autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch

from landscape.fx.threads import HeldSetting

backends: Any = torch.backends

NEWER = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)

OLDER: tuple[tuple[Callable[[], Any], Callable[[Any], None], Any], ...] = (
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    (
        lambda: backends.cuda.matmul.allow_tf32,
        partial(setattr, backends.cuda.matmul, "allow_tf32"),
        False,
    ),
    (lambda: backends.cudnn.allow_tf32, partial(setattr, backends.cudnn, "allow_tf32"), False),
)
"""(read, write, the value that forbids TF32)."""


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 and no autocast within, however torch was told to allow them; also a decorator.

    Autocast computes in 8 or 11 bits what errors are claimed for in 24. A model's own autocast, within its forward,
    stays. For TF32 there is nothing to do before CUDA is in use.
    Its relative error of 5e-4 a factor is a hundred times what an eigenvalue is claimed to within, and more than two
    ways to compute one loss may differ by. The settings are the process's: other threads' passes have them too.
    """
    with ExitStack() as undo:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                undo.enter_context(torch.autocast(device, enabled=False))
        if torch.cuda.is_initialized():
            undo.enter_context(_WITHOUT_TF32.held())
        yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    on_cpu = backends.mkldnn.matmul
    with ExitStack() as undo:
        # one of the older names speaks of the CPU too
        undo.callback(setattr, on_cpu, "fp32_precision", on_cpu.fp32_precision)
        # by the older names first, as torch may refuse to multiply where they say other than the newer ones do
        for read, write, full in OLDER:
            with suppress(RuntimeError):
                if (before := read()) != full:
                    undo.callback(write, before)
                    write(full)
        for place in NEWER:
            if place.fp32_precision == "tf32":
                undo.callback(setattr, place, "fp32_precision", "tf32")
                place.fp32_precision = "ieee"
        yield


_WITHOUT_TF32 = HeldSetting(_without_tf32)
