"""A pool of worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

import torch

from analysis.engine.jobs import Event, Job, OnEvent, no_listener
from analysis.engine.resources import Resources
from analysis.plan.own_parts import OWN_LINE
from landscape import tune_allocator

START = "spawn"
"""How workers start: anew, because a copy of a process that has threads or a GPU can hang."""


class Processes:
    """A pool whose worker processes have one job each and share the machine's threads. Dead workers are replaced."""

    lost: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, resources: Resources) -> None:
        self.on_event: OnEvent = no_listener
        self.workers = resources.workers
        # one job more than workers, so that no worker waits while this process handles a result
        self.slots = self.workers + 1
        self._threads = resources.threads or threads_of_each(self.workers)
        self._gpus = gpus_of_workers(self.workers, resources.device)
        self._context = multiprocessing.get_context(START)
        self._events: Queue[Event] | None = None
        self._pool: ProcessPoolExecutor | None = None
        # processes that the caller has started must not be ended here
        self._others = multiprocessing.active_children()
        wait_passively()

    def submit(self, job: Job) -> Future[Any]:
        """Hands a job to the next free worker."""
        if self._pool is None:
            # each pool has a new queue, because a worker killed while it wrote holds the queue's lock for ever
            self._events = self._context.Queue()
            gpus: Queue[int] = self._context.Queue()
            for index in self._gpus:
                gpus.put(index)
            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=self._context,
                initializer=_start_worker,
                initargs=(self._events, self._threads, gpus if self._gpus else None),
            )
        return self._pool.submit(_work, job)

    def deliver(self) -> None:
        """Passes on the events that the workers have put into the queue."""
        while self._events is not None:
            try:
                self.on_event(self._events.get_nowait())
            except queue.Empty:
                return

    def renew(self) -> None:
        """Ends all workers of a broken pool. The next job opens a new pool."""
        if self._pool is not None and self._pool._broken:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def close(self, *, at_once: bool) -> None:
        """Ends the workers."""
        if at_once:
            kill_children(besides=self._others)
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def kill_children(*, besides: Collection[BaseProcess]) -> None:
    """Ends the children of this process, except for those that were there before."""
    for child in multiprocessing.active_children():
        if child not in besides:
            child.kill()


def cores() -> int:
    """The number of cores that this process may use, which a batch system may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_each(workers: int) -> int:
    """The cores divided among workers."""
    return max(1, cores() // workers)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Within, torch computes with this number of threads; None changes nothing."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def gpus_of_workers(workers: int, device: str) -> list[int]:
    """The index of the GPU of each worker; empty if there is nothing to divide."""
    count = torch.cuda.device_count() if device == "cuda" else 0
    return [index % count for index in range(workers)] if count > 1 else []


def wait_passively() -> None:
    """Sets the environment so that OpenMP threads of later processes sleep while they wait.

    Threads of two processes that spin at their barriers slow each other down many times over. torch reads the variable
    when it is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


_events: Queue[Event] | None = None


def _start_worker(events: Queue[Event], threads: int, gpus: Queue[int] | None) -> None:
    global _events
    _events = events
    # unread progress must not keep a worker from ending
    events.cancel_join_thread()
    torch.set_num_threads(threads)
    if gpus is not None:
        # "cuda" now means this GPU; the files say "cuda" for every GPU
        torch.cuda.set_device(gpus.get())
    tune_allocator()
    # Ctrl-C reaches the whole process group; only the parent reacts, and ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job) -> Any:
    identity, function = job
    events = _events
    assert events is not None
    try:
        return function(report=lambda *event: events.put((identity, *event)))
    except Exception as error:
        raise portable(error) from None


def portable(error: Exception) -> Exception:
    """The error, or only its text if it cannot be pickled, which would look like the death of a worker."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        text = RuntimeError(f"{type(error).__name__}: {error}")
        vars(text).update({name: value for name, value in vars(error).items() if name == OWN_LINE})
        return text
    return error
