"""Says what to do about a worker of a DataLoader that dies or raises an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

OF_A_WORKER = "DataLoader worker"
"""What torch writes into the errors of workers: of those that were killed, and of those that raised one."""

NAMED = "data: a worker of the DataLoader"


@contextmanager
def names_the_worker(data: Any) -> Iterator[None]:
    """A block that reads batches. It may hold others.

    A signal tells torch of a worker that was killed, so that the error may be raised at any place of the block.

    Raises:
        RuntimeError: a worker of a DataLoader died or raised an error. The error has torch's own one as its cause.
    """
    try:
        yield
    except Exception as error:
        is_of_a_worker = isinstance(data, DataLoader) and data.num_workers > 0 and OF_A_WORKER in str(error)
        if not is_of_a_worker or str(error).startswith(NAMED):
            raise
        # what the worker raised is the last line, behind its traceback
        *_, cause = str(error).strip().splitlines()
        raise RuntimeError(
            f"{NAMED} died or raised an error ({cause}); num_workers=0 shows the cause; a "
            "worker that is killed often lacks memory: give fewer workers or smaller batches"
        ) from error
