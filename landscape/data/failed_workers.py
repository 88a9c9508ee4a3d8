"""Reads a DataLoader whose workers may die or raise an error, and says what to do about that."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

OF_A_WORKER = "DataLoader worker"
"""What torch writes into the errors of workers: of those that were killed, and of those that raised one."""

NAMED = "data: a worker of the DataLoader"

LOST = (OSError, EOFError)
"""What Python raises where it reads a batch from a worker that has just died."""

END = object()


def read_by_workers(data: Any) -> Iterator[Any]:
    """The batches of any iterable. A worker of a DataLoader that dies raises its error here, and nowhere else.

    A signal tells torch of a worker that was killed, and torch raises the error wherever the program is then. Between
    two batches that may be where this process and others wait for each other, which would then wait for good. Workers
    that stay for the next pass (`persistent_workers=True`) and die before it are replaced by new ones.

    Raises:
        RuntimeError: see `names_the_worker`.
    """
    with names_the_worker(data):
        batches: Any = _begun(data)
        if not (isinstance(data, DataLoader) and data.num_workers):
            yield from batches
            return
        with _told_of_workers(batches, stay=data.persistent_workers), _DeathsAtBatches() as deaths:
            try:
                while (batch := deaths.let_through(batches)) is not END:
                    yield batch
            except Exception:
                # torch would tell of workers that are still there and die later
                if not data.persistent_workers:
                    batches._shutdown_workers()
                raise


def _begun(data: Any) -> Iterator[Any]:
    """An iterator over the batches, with new workers if one has died since the last pass."""
    _drop_dead_workers(data)
    try:
        return iter(data)
    except Exception:
        # one may have died just now
        if not _drop_dead_workers(data):
            raise
    return iter(data)


def _drop_dead_workers(data: Any) -> bool:
    """Ends the workers that a loader kept from the last pass, if one of them is dead. Whether it did so."""
    kept: Any = data._iterator if isinstance(data, DataLoader) and data.persistent_workers else None
    if kept is None or all(worker.is_alive() for worker in kept._workers):
        return False
    kept._shutdown_workers()
    data._iterator = None
    return True


@contextmanager
def _told_of_workers(batches: Any, *, stay: bool) -> Iterator[None]:
    """A block in which a signal tells torch of dead workers. Those that stay after it may die without an error."""
    if stay and not batches._worker_pids_set:
        signal_handling._set_worker_pids(id(batches), tuple(worker.pid for worker in batches._workers))
        batches._worker_pids_set = True
    try:
        yield
    finally:
        if stay and batches._worker_pids_set:
            signal_handling._remove_worker_pids(id(batches))
            batches._worker_pids_set = False


class _DeathsAtBatches:
    """A handler of the signal by which torch learns of dead workers. Its error is raised while a batch is read."""

    def __init__(self) -> None:
        self._raises = False
        self._before: Any = None
        self._is_installed = hasattr(signal, "SIGCHLD") and current_thread() is main_thread()

    def __enter__(self) -> _DeathsAtBatches:
        if self._is_installed:
            self._before = signal.signal(signal.SIGCHLD, self)
        return self

    def __exit__(self, *_: object) -> None:
        # another reader may have put its own handler over this one, which stays
        self._raises, before = True, self._before
        if (
            self._is_installed
            and current_thread() is main_thread()
            and signal.getsignal(signal.SIGCHLD) is self
        ):
            signal.signal(signal.SIGCHLD, before)

    def __call__(self, number: int, frame: Any) -> None:
        """Does what was done before, without an error between two batches."""
        if callable(self._before):
            try:
                self._before(number, frame)
            except RuntimeError:
                if self._raises:
                    raise

    def let_through(self, batches: Iterator[Any]) -> Any:
        """The next batch; `END` if there is none."""
        self._raises = True
        try:
            return next(batches, END)
        finally:
            self._raises = False


@contextmanager
def names_the_worker(data: Any) -> Iterator[None]:
    """A block that reads batches. It may hold others.

    Raises:
        RuntimeError: a worker of a DataLoader died or raised an error. The error has torch's own one as its cause.
    """
    try:
        yield
    except Exception as error:
        has_workers = isinstance(data, DataLoader) and data.num_workers > 0
        is_of_a_worker = has_workers and (OF_A_WORKER in str(error) or isinstance(error, LOST))
        if not is_of_a_worker or str(error).startswith(NAMED):
            raise
        # what the worker raised is the last line, behind its traceback
        *_, cause = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeError(
            f"{NAMED} died or raised an error ({cause}); num_workers=0 shows the cause; a "
            "worker that is killed often lacks memory: give fewer workers or smaller batches"
        ) from error
