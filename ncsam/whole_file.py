"""Writes a file whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CANNOT_FLUSH = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK})
"""Errors of file systems that cannot write a file, or the names in a folder, through to the disk."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder. What is written there takes the place of `path` if nothing fails.

    The file is flushed to the disk before it takes the place, and its new name after. So a power failure leaves the
    former file or the new one.
    """
    # the name says which process of which machine writes, so that others can tell whether the writer has died
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    beside = path.with_name(f".{path.name}.{machine}-{os.getpid()}-{secrets.token_hex(6)}.tmp")
    try:
        yield beside
        _flush(beside)
        os.replace(beside, path)
        _flush(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _flush(place: Path) -> None:
    """Writes a file, or the names in a folder, through to the disk, if the file system can do that."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)
