"""Where runs execute: in this process, or in a pool of worker processes."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import Queue
from typing import Protocol

import torch

from landscape import tune_allocator

ENGINES = ("serial", "processes")
MAX_POOLS = 4
"""When a worker dies, what it had in hand goes to a new pool, at most so often in all."""

Event = tuple[str, str, int, int]
"""(job's id, what is being done, steps done, steps in all)."""
Job = tuple[str, Callable[..., None]]
"""(id, function); the function takes `report(doing, done, total)` and must be picklable."""
OnEvent = Callable[[Event], None]
OnDone = Callable[[str, BaseException | None], None]


class Engine(Protocol):
    """Runs jobs; one that fails does not stop the others."""

    def run(self, jobs: Sequence[Job], on_event: OnEvent, on_done: OnDone) -> None:
        """Runs all jobs.

        Args:
            jobs: what to run.
            on_event: called in this process with the progress that a job reports.
            on_done: called in this process with the id of each finished job and its error, if any.
        """


@contextmanager
def open_engine(name: str, workers: int) -> Iterator[Engine]:
    """An engine by name; `workers` is for `"processes"`."""
    if name == "serial":
        yield Serial()
        return
    processes = Processes(workers)
    try:
        yield processes
    except BaseException:
        # such as Ctrl-C: what a worker has in hand is in its checkpoint
        for child in multiprocessing.active_children():
            child.kill()
        raise
    finally:
        processes.close()


class Serial:
    """One job after another, in this process."""

    def run(self, jobs: Sequence[Job], on_event: OnEvent, on_done: OnDone) -> None:
        """Runs all jobs."""
        for job, function in jobs:

            def report(doing: str, done: int, total: int, job: str = job) -> None:
                on_event((job, doing, done, total))

            try:
                function(report=report)
            except Exception as error:
                on_done(job, error)
            else:
                on_done(job, None)


class Processes:
    """One job a worker process, this machine's threads divided among them; a dead worker is replaced."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._context = multiprocessing.get_context("spawn")
        self._events: Queue[Event] = self._context.Queue()
        self._pool: ProcessPoolExecutor | None = None
        # two busy OpenMP teams that spin at their barriers slow each other down many times over
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    def run(self, jobs: Sequence[Job], on_event: OnEvent, on_done: OnDone) -> None:
        """Runs all jobs; those in hand when a worker dies are resumed by others."""
        for _ in range(MAX_POOLS):
            if not jobs:
                return
            if self._pool is None:
                threads = max(1, (os.cpu_count() or 1) // self._workers)
                self._pool = ProcessPoolExecutor(
                    self._workers,
                    mp_context=self._context,
                    initializer=_start_worker,
                    initargs=(self._events, threads),
                )
            pending: dict[Future[None], Job] = {}
            try:
                for job in jobs:
                    pending[self._pool.submit(_work, job)] = job
            except BrokenProcessPool:
                # a worker died while it was idle: what could not be handed over waits for the next pool
                pass
            unsubmitted = jobs[len(pending) :]
            jobs = [*self._collect(pending, on_event, on_done), *unsubmitted]
            if jobs:
                self.close()
        for identity, _ in jobs:
            on_done(identity, BrokenProcessPool("worker processes died again and again"))

    def close(self) -> None:
        """Ends the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _collect(self, pending: dict[Future[None], Job], on_event: OnEvent, on_done: OnDone) -> list[Job]:
        """Waits for all; returns the jobs that were lost because a worker died."""
        lost = []
        while pending:
            finished, _ = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
            while True:
                try:
                    on_event(self._events.get_nowait())
                except queue.Empty:
                    break
            for future in finished:
                job = pending.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    lost.append(job)
                else:
                    on_done(job[0], error)
        return lost


_events: Queue[Event] | None = None


def _start_worker(events: Queue[Event], threads: int) -> None:
    global _events
    _events = events
    torch.set_num_threads(threads)
    tune_allocator()
    # Ctrl-C goes to the whole group; the parent decides, and its end is a worker's end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job) -> None:
    identity, function = job
    events = _events
    assert events is not None
    function(report=lambda *event: events.put((identity, *event)))
