"""Where runs execute: in this process, in a pool of local processes, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from analysis.engine.cluster import Cluster
from analysis.engine.jobs import Engine, EngineError, Event, Job, run_jobs
from analysis.engine.processes import Processes, cores
from analysis.engine.serial import Serial

ENGINES = ("serial", "processes", "dask")

__all__ = ["ENGINES", "Engine", "EngineError", "Event", "Job", "cores", "open_engine", "run_jobs"]


@contextmanager
def open_engine(
    name: str,
    workers: int = 1,
    *,
    threads: int | None = None,
    device: str = "cpu",
    scheduler: str | None = None,
) -> Iterator[Engine]:
    """An engine by name, its workers ended with the context.

    Args:
        name: one of `ENGINES`.
        workers: processes, for `"processes"` and for `"dask"` without a scheduler.
        threads: of torch in each worker; None divides this machine's cores among them, and leaves alone what
            runs in this process or on a cluster that somebody else has started.
        device: `"cuda"` gives each worker a GPU of its own, by index, as far as there are enough.
        scheduler: address of a Dask scheduler; None starts a cluster on this machine.

    Raises:
        EngineError: no Dask, or no answer from the scheduler.
    """
    engine: Engine
    if name == "serial":
        engine = Serial(threads)
    elif name == "processes":
        engine = Processes(workers, threads, device)
    else:
        engine = Cluster(workers, threads, device, scheduler)
    try:
        yield engine
    except BaseException:
        # such as Ctrl-C: what a worker has in hand is in its checkpoint
        engine.close(at_once=True)
        raise
    else:
        engine.close(at_once=False)
