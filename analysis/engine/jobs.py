"""Hands jobs to an engine, a bounded number at a time, and repeats or reports a job whose worker dies."""

from __future__ import annotations

import queue
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol

MAX_LOSSES = 3
"""Deaths of its worker after which a job fails. In the last try the job runs alone, so that no other job is blamed."""
SECONDS_BETWEEN_LOOKS = 0.1

Event = tuple[str, str, int, int]
"""(job's id, what is being done, steps done, steps in all)."""
Job = tuple[str, Callable[..., Any]]
"""(id, function); the function takes `report(doing, done, total)`; it and what it returns must be picklable."""
OnEvent = Callable[[Event], None]
OnDone = Callable[[str, Any, BaseException | None], None]
"""(job's id, what it returned, its error); one of the last two is None."""


class EngineError(ValueError):
    """An engine that cannot be started, or has ended; the message is one line."""


class WorkerDiedError(RuntimeError):
    """A job whose workers died again and again, such as for want of memory."""


class Engine(Protocol):
    """A `concurrent.futures` executor that outlives its workers and passes on what they report."""

    @property
    def workers(self) -> int:
        """Jobs that are done at the same time."""

    slots: int
    """Jobs that it can have in hand without one waiting for long."""
    lost: tuple[type[BaseException], ...]
    """What a future ends with when its worker died."""

    def submit(self, job: Job, on_event: OnEvent) -> Future[Any]:
        """Starts a job."""

    def deliver(self, on_event: OnEvent) -> None:
        """Passes on what jobs have reported."""

    def renew(self) -> None:
        """Replaces workers that died."""

    def close(self, *, at_once: bool) -> None:
        """Ends the workers, in the midst of their jobs if need be."""


def run_jobs(engine: Engine, jobs: Sequence[Job], on_event: OnEvent, on_done: OnDone) -> None:
    """Runs all jobs. A job that fails does not stop the others; a job whose worker dies is started again.

    Args:
        engine: where.
        jobs: what to run.
        on_event: called in this process with the progress that a job reports.
        on_done: called in this process for each finished job.

    Raises:
        EngineError: the engine is gone.
    """
    waiting = deque(jobs)
    in_hand: dict[Future[Any], Job] = {}
    finished: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    losses: Counter[str] = Counter()

    def is_suspect(job: Job) -> bool:
        return losses[job[0]] == MAX_LOSSES - 1

    def may_start(job: Job) -> bool:
        if is_suspect(job) or any(map(is_suspect, in_hand.values())):
            return not in_hand
        return len(in_hand) < engine.slots

    while waiting or in_hand:
        while waiting and may_start(waiting[0]):
            job = waiting.popleft()
            try:
                future = engine.submit(job, on_event)
            except engine.lost:
                # a worker died while it was idle
                engine.renew()
                future = engine.submit(job, on_event)
            in_hand[future] = job
            future.add_done_callback(finished.put)
        try:
            future = finished.get(timeout=SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            engine.deliver(on_event)
            continue
        engine.deliver(on_event)
        job = in_hand.pop(future)
        error = _error_of(future)
        if not isinstance(error, engine.lost):
            on_done(job[0], None if error else future.result(), error)
            continue
        losses[job[0]] += 1
        engine.renew()
        if losses[job[0]] < MAX_LOSSES:
            waiting.append(job)
        else:
            died = WorkerDiedError(f"its worker was killed {MAX_LOSSES} times; was memory used up?")
            on_done(job[0], None, died)


def _error_of(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError:
        raise EngineError(
            "--scheduler: the Dask scheduler is gone; what is finished is kept, and the same command goes on from "
            "there with a new one"
        ) from None
