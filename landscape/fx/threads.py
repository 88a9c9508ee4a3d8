"""Locks for what threads share: settings of the process, models whose weights are swapped, and torch's tracing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

TRACING = threading.RLock()
"""Held while a model is traced, because tracing changes the whole process. An Objective's lock is taken first."""


class HeldSetting:
    """A setting of the process that several threads may change at the same time.

    The first thread that enters changes the setting, and the last one that leaves restores it.

    Args:
        change: a context manager that changes the setting.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._holders = 0
        self._undo = ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block the setting is changed."""
        with self._lock:
            if self._holders == 0:
                self._undo.enter_context(self._change())
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._undo.close()


class ThreadLock:
    """A lock that one thread holds at a time, maybe several times. A copy of the lock is a new lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[ThreadLock], tuple[()]]:
        return ThreadLock, ()


# Any stands for a class with a lock named `exclusive`
Self = TypeVar("Self", bound=Any)
P = ParamSpec("P")
Result = TypeVar("Result")


def one_thread_at_a_time(
    method: Callable[Concatenate[Self, P], Result],
) -> Callable[Concatenate[Self, P], Result]:
    """A method that holds the object's lock `exclusive`, so that other threads wait."""

    @wraps(method)
    def alone(self: Self, *arguments: P.args, **options: P.kwargs) -> Result:
        with self.exclusive:
            return method(self, *arguments, **options)

    return alone
