"""A context for operations in which nothing is compiled."""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_LOCK = threading.Lock()

_STANCES: list[AbstractContextManager[Any]] = []
"""One entry for each such context that is open; the first is torch's own context."""


class Uncompiled(TorchDispatchMode):
    """A context for operations, inside of which `torch.compile` compiles nothing.

    Compiled functions run as they are written. Within another `TorchDispatchMode` torch would not compile a function,
    and would not compile it later either. So flex_attention and torch.cond, which must be compiled, would fail ever
    after.
    """

    supports_higher_order_operators = True
    """flex_attention and torch.cond fail without this. Operations inside of these are not seen."""

    def __enter__(self) -> Self:
        """Turns compilation off."""
        with _LOCK:
            _STANCES.append(_STANCES[0] if _STANCES else _turned_off())
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Turns compilation on, where no other such context is open in any thread."""
        super().__exit__(*error)
        with _LOCK:
            first = _STANCES.pop()
            if not _STANCES:
                first.__exit__(None, None, None)


def _turned_off() -> AbstractContextManager[Any]:
    # torch.compiler would load what compiles, for seconds, where no model has
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
