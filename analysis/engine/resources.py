"""What a study may use: an engine, its workers, a device, and the folder of data files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Resources:
    """Where and with what runs are done.

    Attributes:
        engine: one of `analysis.engine.ENGINES`.
        workers: processes, for `"processes"` and for `"dask"` without a scheduler.
        device: where to train and measure. `"cuda"` gives each worker a GPU of its own, by index, as far as there are
            enough.
        data_dir: where data files are; None for data sets that come with a package.
        threads: of torch in each worker; results are the same bit for bit only with the same number. None divides this
            machine's cores among the workers, and leaves alone what runs in this process or on a cluster that somebody
            else has started.
        scheduler: address of a Dask scheduler; None starts a cluster on this machine.
    """

    engine: str = "serial"
    workers: int = 1
    device: str = "cpu"
    data_dir: Path | None = None
    threads: int | None = None
    scheduler: str | None = None


IN_THIS_PROCESS = Resources()
"""One run after another, on the CPU."""
