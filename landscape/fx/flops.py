"""Counts the floating-point operations of any forward pass, and the calls of torch's operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")


def with_flops(run: Callable[[], T]) -> tuple[T, float]:
    """`run()`, and its number of floating-point operations.

    The number is 0 if torch cannot count them, as for nested tensors; `run()` is then called once more.

    Raises:
        torch.OutOfMemoryError: `run()` needs more memory than there is; it is called once.
    """
    try:
        with _Flops() as counter:
            return run(), counter.get_total_flops()
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return run(), 0


def counted_work(run: Callable[[], object]) -> tuple[float, int]:
    """The floating-point operations of `run()`, as by `with_flops`, and its calls of torch's operations."""

    def run_alone() -> None:
        # a run that could not be counted is no part of the work
        calls.count = 0
        run()

    with _Calls() as calls:
        _, flops = with_flops(run_alone)
    return flops, calls.count


class _Calls(TorchDispatchMode):
    """Counts the calls of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        self.count += 1
        return function(*arguments, **(options or {}))


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
