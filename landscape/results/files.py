"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

A_DAY = 86_400
NOT_SUPPORTED = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK})
"""Errors of file systems, such as those of networks and containers, that cannot lock or cannot flush a folder."""


@contextmanager
def replaced(
    path: Path, *, copied: bool = False, through_link: bool = True, suffix: str = ""
) -> Iterator[Path]:
    """Yields a temporary path. If nothing fails, the file that is written there replaces the old file in one step.

    A kill, a full disk or an exception leaves the old file as it was. The content is flushed to the disk before the
    names change and the folder after, so that a power failure leaves one of the two files too.

    Args:
        path: path of the file, or of a link to the file; neither needs to exist.
        copied: whether the temporary file begins as a copy of the old file.
        through_link: whether a link stays and its target is replaced. Otherwise the file replaces the link.
        suffix: how the temporary path ends, for a writer that chooses the format by it.
    """
    target = path.resolve() if through_link else path
    beside = temporary_name(target, suffix)
    try:
        if copied and target.exists():
            shutil.copy(target, beside)
        yield beside
        flush(beside)
        os.replace(beside, target)
        flush(target.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def one_writer_at_a_time(path: Path) -> Iterator[None]:
    """Within, no other process or thread is within for a file of the same folder: each waits for the one before.

    The folder is locked, for the file itself is replaced. File systems that cannot lock go without.
    """
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        _lock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def is_open_for_writing(path: Path) -> bool:
    """Whether a program holds an HDF5 file open for writing: HDF5 locks it meanwhile."""
    if not path.is_file():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, how: int) -> None:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NOT_SUPPORTED | {errno.EBADF}:
            raise


def flush(path: Path) -> None:
    """Writes a file, or the names in a folder, through to the disk, if the file system can do that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


def temporary_name(path: Path, suffix: str = "") -> Path:
    """The temporary path of a file, different for each writer.

    The name says which process of which machine writes, so that others can tell whether the writer has died.
    """
    return path.with_name(f".{path.name}.{_this_machine()}-{os.getpid()}-{secrets.token_hex(6)}.tmp{suffix}")


TEMPORARY_NAME = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{12}\.tmp(\.[^.]+)?")
"""Those of `ncsam.whole_file` are of this form too."""


def is_left_over(path: Path) -> bool:
    """Whether the writer of a temporary file has died, or belongs to another machine and has been idle for a day."""
    name = TEMPORARY_NAME.fullmatch(path.name)
    if name is None:
        return False
    if name["machine"] == _this_machine():
        return not is_alive(int(name["process"]))
    try:
        return time.time() - path.stat().st_mtime > A_DAY
    except FileNotFoundError:
        return False


def is_alive(process: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _this_machine() -> str:
    # containers of one machine have different names, and each counts processes by itself
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
