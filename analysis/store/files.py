"""Writes files whole or not at all, and removes the temporary files of interrupted writers."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from landscape.results.files import is_alive, is_left_over, replaced

OF_CHECKPOINT = re.compile(r".+\.ckpt\.(?P<process>\d+)\.tmp")
OF_EARLIER_VERSIONS = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
"""Temporary names of earlier versions, which do not name the writer."""


OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors of a disk that is full or read-only. Every later file would fail too."""


class StoreError(ValueError):
    """A study folder cannot be used as asked. The message is one line."""


class BrokenFileError(StoreError):
    """A file is not the one that was written, or must not be trusted."""


def is_of_the_disk(error: BaseException | None) -> bool:
    """Whether the error is that of a full or read-only disk, on which no other run could be written either."""
    return isinstance(error, OSError) and error.errno in OF_THE_DISK


def cannot_write(root: Path, error: OSError) -> StoreError:
    """The error that ends a study whose folder can no longer be written."""
    return StoreError(
        f"out: cannot write to {root}: {error.strerror}; what is finished is kept, and the same command goes on "
        "from there once that is mended"
    )


def replace_file(path: Path, write_to: Callable[[Path], None]) -> None:
    """Writes a file under a temporary name, flushes it and renames it, so that it exists whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # writing through a link would lead out of the study's folder
    with replaced(path, through_link=False) as beside:
        write_to(beside)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""

    # the name of a folder need not be UTF-8
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""

    def write_to(beside: Path) -> None:
        beside.write_bytes(content)

    replace_file(path, write_to)


def remove_checkpoints(path: Path) -> None:
    """Removes the checkpoints of a run's training, also those of other settings, with which it may have begun.

    Args:
        path: the path of the run's file.
    """
    for checkpoint in path.parent.glob(f"{glob.escape(path.stem)}.*.ckpt"):
        checkpoint.unlink(missing_ok=True)


def remove_temporary_files(root: Path) -> None:
    """Removes the temporary files of dead writers from a study's folder that this process has locked.

    Other processes may be writing reports, figures and verdicts into the folder; their files stay.
    """
    for found in root.rglob("*.tmp*"):
        if is_of_dead_writer(found):
            found.unlink(missing_ok=True)


def is_of_dead_writer(path: Path) -> bool:
    """Whether the writer of a temporary file has died, as far as this machine can tell."""
    if checkpoint := OF_CHECKPOINT.fullmatch(path.name):
        return not is_alive(int(checkpoint["process"]))
    return OF_EARLIER_VERSIONS.fullmatch(path.name) is not None or is_left_over(path)


def check_regular(root: Path, *, besides: Collection[str] = ()) -> None:
    """Checks that a study's folder holds only files and folders.

    Args:
        root: the folder, which may itself be a link.
        besides: names in the folder that are not checked.

    Raises:
        StoreError: the folder holds something else, such as a link that leads out of the folder, or a FIFO, at which a
            reader would wait for ever.
    """
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if folder == str(root) and name in besides:
                continue
            with suppress(FileNotFoundError):  # another process may be replacing the file at this moment
                mode = path.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
                    raise StoreError(
                        f"results: {path} is {kind}; a study's folder holds regular files alone: put the file itself "
                        "there, or take this away"
                    )


def set_aside(path: Path) -> Path:
    """Renames a broken file, so that it is out of the way but not lost. Returns its new name."""
    for number in range(1, 1000):
        aside = path.with_name(f"{path.name}.broken-{number}")
        if not aside.exists():
            os.replace(path, aside)
            return aside
    raise StoreError(f"out: {path} was found broken a thousand times; look at the disk")


def check_is_no_file(root: Path) -> None:
    """Raises NotADirectoryError if a file was named in place of a study's folder, and says what was probably meant."""
    if not root.is_file():
        return
    if root.suffix == ".toml":
        raise NotADirectoryError(
            f"results: {root} is a study file; name the folder with its results, the --out of 'ncsam study'"
        )
    raise NotADirectoryError(
        f"results: {root} is a file, not a study's folder; a checkpoint of your own is measured by "
        f"'ncsam measure {root} --model module:function --data DATA'"
    )
