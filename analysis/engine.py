"""Where runs execute: in this process, or in a pool of worker processes."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue

import torch

ENGINES = ("serial", "processes")
MAX_POOLS = 4
"""A job whose worker dies is given to a new pool, at most so often in all."""

Event = tuple[str, str, int, int]
"""(job's title, what is being done, steps done, steps in all)."""
Job = tuple[str, Callable[..., None]]
"""(title, function); the function takes `report(doing, done, total)` and must be picklable."""


def run_jobs(
    jobs: Iterable[Job],
    *,
    engine: str,
    workers: int,
    on_event: Callable[[Event], None],
    on_done: Callable[[str, BaseException | None], None],
) -> None:
    """Runs all jobs; one that fails does not stop the others.

    Args:
        jobs: what to run.
        engine: `"serial"` or `"processes"`.
        workers: how many processes; this machine's threads are divided among them.
        on_event: called here with the progress that a job reports.
        on_done: called here with the title of each finished job and its error, if any.
    """
    jobs = list(jobs)
    if not jobs:
        return
    if engine == "serial":
        for title, function in jobs:
            try:
                function(report=lambda *event, title=title: on_event((title, *event)))
            except Exception as error:
                on_done(title, error)
            else:
                on_done(title, None)
        return
    workers = min(workers, len(jobs))
    threads = max(1, (os.cpu_count() or 1) // workers)
    # two busy OpenMP teams that spin at their barriers slow each other down many times over
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context = multiprocessing.get_context("spawn")
    events: Queue[Event] = context.Queue()
    for attempt in range(1, MAX_POOLS + 1):
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start_worker, initargs=(events, threads)
        ) as pool:
            pending = {pool.submit(_work, job): job for job in jobs}
            jobs = _collect(pending, events, on_event, on_done, last_attempt=attempt == MAX_POOLS)
        if not jobs:
            return


def _collect(
    pending: dict[Future[None], Job],
    events: Queue[Event],
    on_event: Callable[[Event], None],
    on_done: Callable[[str, BaseException | None], None],
    *,
    last_attempt: bool,
) -> list[Job]:
    """Waits for all; returns the jobs that were lost because a worker died."""
    lost = []
    while pending:
        done, _ = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
        while True:
            try:
                on_event(events.get_nowait())
            except queue.Empty:
                break
        for future in done:
            job = pending.pop(future)
            error = future.exception()
            if isinstance(error, BrokenProcessPool) and not last_attempt:
                lost.append(job)
            else:
                on_done(job[0], error)
    return lost


_events: Queue[Event] | None = None


def _start_worker(events: Queue[Event], threads: int) -> None:
    global _events
    _events = events
    torch.set_num_threads(threads)
    # Ctrl-C goes to the whole group; the parent decides, and its end is a worker's end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job) -> None:
    title, function = job
    events = _events
    assert events is not None
    function(report=lambda *event: events.put((title, *event)))
