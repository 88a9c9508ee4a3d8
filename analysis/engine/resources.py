"""The resources of a study: engine, workers, device, and folder of data files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Resources:
    """How runs are executed.

    Attributes:
        engine: one of `analysis.engine.ENGINES`.
        workers: number of processes, for `"processes"` and for `"dask"` without a scheduler.
        device: device of training and measuring. `"cuda"` gives each worker a GPU of its own, if there are enough GPUs.
        data_dir: folder of data files; None for data sets of a package.
        threads: number of torch's threads in each worker. Results are the same bit for bit only with the same number.
            None divides the cores of this machine among the workers. For this process, and for a cluster that was
            started elsewhere, None changes nothing.
        scheduler: address of a Dask scheduler; None starts a cluster on this machine.
    """

    engine: str = "serial"
    workers: int = 1
    device: str = "cpu"
    data_dir: Path | None = None
    threads: int | None = None
    scheduler: str | None = None


IN_THIS_PROCESS = Resources()
"""One run after another in this process, on the CPU."""
