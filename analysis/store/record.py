"""What a study needs to know of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from analysis.store.run_file import config_of, opened
from analysis.store.scalars import scalars_of


@dataclass(frozen=True)
class Record:
    """What a study needs to know of a finished run.

    Attributes:
        fingerprint: of its configuration.
        data: digest of its data; empty in a file that was written before there was one.
        row: its scalars.
        trained: number of its training samples.
    """

    fingerprint: str
    data: str
    row: dict[str, Any]
    trained: int


def read_record(path: Path) -> Record:
    """Reads a run file's record.

    Raises:
        FileNotFoundError: no such file.
        BrokenFileError: not a whole run file.
    """
    with opened(path) as file:
        return record_of(file)


def record_of(file: h5py.File) -> Record:
    """`read_record` of an open file."""
    stored = config_of(file)
    return Record(
        str(stored["fingerprint"]),
        str(stored.get("data", "")),
        scalars_of(file),
        len(file["labels/observed"]),
    )


def scalars(path: Path) -> dict[str, Any]:
    """A run's numbers for the table of all runs."""
    return read_record(path).row
