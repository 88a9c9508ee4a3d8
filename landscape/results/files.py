"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOT_SUPPORTED = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK})
"""What file systems of networks and containers answer that cannot lock, or cannot flush a folder."""


@contextmanager
def replaced(path: Path, *, copied: bool = False, through_link: bool = True) -> Iterator[Path]:
    """Where to write what takes the place of a file at once, flushed to the disk, if nothing fails.

    A kill, a full disk or an exception leaves the old file as it was.

    Args:
        path: of the file, or of a link to it; it need not be there.
        copied: begin with a copy of it.
        through_link: a link stays, and what it leads to is replaced; otherwise the file takes the link's place.
    """
    target = path.resolve() if through_link else path
    beside = temporary_name(target)
    try:
        if copied and target.exists():
            shutil.copy(target, beside)
        yield beside
        flush(beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Has a file, or the names in a folder, reach the disk, where the file system can do that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """Where to write before the file takes its name; no two writers have the same."""
    # processes of two machines may have one number
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
