"""Writes files whole or not at all, and removes what interrupted writers left."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from landscape.results.files import flush, is_alive, is_left_over, replaced

OF_CHECKPOINT = re.compile(r".+\.ckpt\.(?P<process>\d+)\.tmp")
OF_EARLIER_VERSIONS = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
"""Temporary names of earlier versions, which do not say who writes."""


OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""A disk that is full, or read-only: every later file would fail as well."""


class StoreError(ValueError):
    """A study folder that cannot be used as asked; the message is one line."""


class BrokenFileError(StoreError):
    """A file that is not what was written, or not to be trusted."""


def is_of_the_disk(error: BaseException | None) -> bool:
    """Whether the disk is full or read-only, so that no other run could be written either."""
    return isinstance(error, OSError) and error.errno in OF_THE_DISK


def cannot_write(root: Path, error: OSError) -> StoreError:
    """What a study ends with whose folder can no longer be written."""
    return StoreError(
        f"out: cannot write to {root}: {error.strerror}; what is finished is kept, and the same command goes on "
        "from there once that is mended"
    )


def replace_file(path: Path, write_to: Callable[[Path], None]) -> None:
    """Writes a file beside its place, flushes it to disk and renames it: it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # a link of a study's folder would lead the writer out of it
    with replaced(path, through_link=False) as beside:
        write_to(beside)
    # a new name outlives a power failure only once its folder is on the disk
    flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""

    # a folder's name need not be UTF-8
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""

    def write_to(beside: Path) -> None:
        beside.write_bytes(content)

    replace_file(path, write_to)


def remove_temporary_files(root: Path) -> None:
    """Takes away what writers that have died left in a study's folder, which this process has for itself.

    Reports, figures and verdicts may be written into the folder at the same time; their files stay.
    """
    for found in root.rglob("*.tmp"):
        if is_of_dead_writer(found):
            found.unlink(missing_ok=True)


def is_of_dead_writer(path: Path) -> bool:
    """Whether a temporary file's writer has died, as far as this machine can tell."""
    if checkpoint := OF_CHECKPOINT.fullmatch(path.name):
        return not is_alive(int(checkpoint["process"]))
    return OF_EARLIER_VERSIONS.fullmatch(path.name) is not None or is_left_over(path)


def check_regular(root: Path, *, besides: Collection[str] = ()) -> None:
    """Checks that a study's folder holds files and folders alone.

    Args:
        root: the folder; it may be a link itself.
        besides: names in the folder that are not looked at.

    Raises:
        StoreError: something else is in it, such as a link that would be followed out of the folder, or a FIFO, at
            which a reader would wait for ever.
    """
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if folder == str(root) and name in besides:
                continue
            with suppress(FileNotFoundError):  # such as a file that another process replaces just now
                mode = path.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
                    raise StoreError(
                        f"results: {path} is {kind}; a study's folder holds regular files alone: put the file itself "
                        "there, or take this away"
                    )


def set_aside(path: Path) -> Path:
    """Renames a broken file, so that it is out of the way and not lost; returns its new name."""
    for number in range(1, 1000):
        aside = path.with_name(f"{path.name}.broken-{number}")
        if not aside.exists():
            os.replace(path, aside)
            return aside
    raise StoreError(f"out: {path} was found broken a thousand times; look at the disk")
