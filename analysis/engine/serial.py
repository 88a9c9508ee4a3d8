"""One job after another, in this process."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import torch

from analysis.engine.jobs import Job, OnEvent


class Serial:
    """Each job runs while it is submitted."""

    workers = 1
    slots = 1
    lost: tuple[type[BaseException], ...] = ()

    def __init__(self, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)

    def submit(self, job: Job, on_event: OnEvent) -> Future[Any]:
        """Runs a job to its end."""
        identity, function = job
        future: Future[Any] = Future()
        try:
            result = function(report=lambda *event: on_event((identity, *event)))
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    def deliver(self, on_event: OnEvent) -> None:
        """Does nothing, because events were passed on while the job ran."""

    def renew(self) -> None:
        """Does nothing, because this process is the worker."""

    def close(self, *, at_once: bool) -> None:
        """Does nothing, because there are no workers."""
