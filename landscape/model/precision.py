"""Full float32 for measurements: no TF32, the default of GPUs for convolutions, and no autocast of the caller."""

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
"""Settings of torch as (read, write, value that forbids TF32)."""


@contextmanager
def full_float32() -> Iterator[None]:
    """Turns off TF32 and autocast inside the block. Also a decorator.

    The errors of results assume the 24 bits of float32; autocast computes in 8 or 11 bits. The autocast of a model in
    its forward stays on. TF32 needs no care before CUDA is in use. Its relative error of 5e-4 for each factor is a
    hundred times the error that is given for an eigenvalue, and more than two ways to compute one loss may differ. The
    settings belong to the process, so that other threads have them too.
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
        # one of the older settings also changes the CPU
        undo.callback(setattr, on_cpu, "fp32_precision", on_cpu.fp32_precision)
        # the older settings first, because torch may refuse to multiply if they contradict the newer ones
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
