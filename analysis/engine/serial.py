"""One job after another, in this process."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from analysis.engine.jobs import Job, OnEvent, no_listener
from analysis.engine.processes import torch_threads


class Serial:
    """Each job runs while it is submitted."""

    workers = 1
    slots = 1
    lost: tuple[type[BaseException], ...] = ()

    def __init__(self, threads: int | None) -> None:
        self.on_event: OnEvent = no_listener
        self._threads = threads

    def submit(self, job: Job) -> Future[Any]:
        """Runs a job to its end."""
        identity, function = job
        future: Future[Any] = Future()
        try:
            with torch_threads(self._threads):
                result = function(report=lambda *event: self.on_event((identity, *event)))
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    def deliver(self) -> None:
        """Does nothing, because events were passed on while the job ran."""

    def renew(self) -> None:
        """Does nothing, because this process is the worker."""

    def close(self, *, at_once: bool) -> None:
        """Does nothing, because there are no workers."""
