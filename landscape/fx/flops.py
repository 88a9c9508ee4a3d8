"""Counts the floating-point operations of any forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")


def with_flops(run: Callable[[], T]) -> tuple[T, float]:
    """`run()`, and its number of floating-point operations; 0 if torch cannot count them (nested tensors)."""
    try:
        with _Flops() as counter:
            return run(), counter.get_total_flops()
    except Exception:
        return run(), 0


class _Flops(FlopCounterMode):
    """torch's counter of operations without hooks on modules, which break a forward pass that differentiates."""

    def __init__(self) -> None:
        super().__init__(display=False)
        whole: Any = _NoModules()
        self.mod_tracker = whole


class _NoModules:
    """Attributes no operation to a module, so that all count for the whole."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass
