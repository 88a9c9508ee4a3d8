"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path, *, copied: bool = False) -> Iterator[Path]:
    """Where to write what takes the place of a file at once, flushed to the disk, if nothing fails.

    A kill, a full disk or an exception leaves the old file as it was.

    Args:
        path: of the file, or of a link to it; it need not be there.
        copied: begin with a copy of it.
    """
    target = path.resolve()
    beside = temporary_name(target)
    try:
        if copied and target.exists():
            shutil.copy(target, beside)
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """Where to write before the file takes its name; no two writers have the same."""
    # processes of two machines may have one number
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
