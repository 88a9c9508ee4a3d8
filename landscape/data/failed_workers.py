"""Says what to do about a worker of a DataLoader that dies or raises an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

OF_A_WORKER = "DataLoader worker"
"""What torch writes into the errors of workers: of those that were killed, and of those that raised one."""


@contextmanager
def names_the_worker(data: Any) -> Iterator[None]:
    """A block that reads a batch.

    Raises:
        RuntimeError: a worker of a DataLoader died or raised an error. The error has torch's own one as its cause.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(data, DataLoader) or not data.num_workers or OF_A_WORKER not in str(error):
            raise
        # what the worker raised is the last line, behind its traceback
        *_, cause = str(error).strip().splitlines()
        raise RuntimeError(
            f"data: a worker of the DataLoader died or raised an error ({cause}); num_workers=0 shows the cause; a "
            "worker that is killed often lacks memory: give fewer workers or smaller batches"
        ) from error
