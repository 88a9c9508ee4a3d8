"""Hands jobs to an engine, a bounded number at a time, and repeats or reports a job whose worker dies."""

from __future__ import annotations

import queue
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol

MAX_LOSSES = 3
"""A job fails after this number of deaths of its worker. Its last try is alone, so that no other job is blamed."""
SECONDS_BETWEEN_LOOKS = 0.1

Event = tuple[str, str, int, int]
"""(id of the job, what is being done, steps done, steps in all)."""
Job = tuple[str, Callable[..., Any]]
"""(id, function). The function takes `report(doing, done, total)`. It and its result must be picklable."""
OnEvent = Callable[[Event], None]
OnDone = Callable[[str, Any, BaseException | None], None]
"""Called with (id of the job, its result, its error); one of the last two is None."""


def no_listener(event: Event) -> None:
    """Lets a report go unheard."""


class EngineError(ValueError):
    """An engine cannot be started, or has ended. The message is one line."""


class WorkerDiedError(RuntimeError):
    """The workers of a job died several times, such as for lack of memory."""


class Engine(Protocol):
    """A `concurrent.futures` executor that outlives its workers and passes on their reports."""

    @property
    def workers(self) -> int:
        """The number of jobs that are executed at the same time."""

    slots: int
    """The number of jobs that may be submitted at a time, so that none waits for long."""
    lost: tuple[type[BaseException], ...]
    """Errors of a future whose worker died."""
    on_event: OnEvent
    """Called in this process with the reports of jobs."""

    def submit(self, job: Job) -> Future[Any]:
        """Starts a job."""

    def deliver(self) -> None:
        """Passes on the reports that have come from workers."""

    def renew(self) -> None:
        """Replaces workers that died."""

    def close(self, *, at_once: bool) -> None:
        """Ends the workers, if necessary in the middle of their jobs."""


def run_jobs(engine: Engine, jobs: Sequence[Job], on_event: OnEvent, on_done: OnDone) -> None:
    """Runs all jobs. A job that fails does not stop the others; a job whose worker dies is started again.

    Args:
        engine: executes the jobs.
        jobs: the jobs.
        on_event: called in this process with the progress that a job reports.
        on_done: called in this process for each finished job.

    Raises:
        EngineError: the engine is gone.
    """
    engine.on_event = on_event
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
                future = engine.submit(job)
            except engine.lost:
                # a worker died while it had no job
                engine.renew()
                future = engine.submit(job)
            in_hand[future] = job
            future.add_done_callback(finished.put)
        try:
            future = finished.get(timeout=SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            engine.deliver()
            continue
        engine.deliver()
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
