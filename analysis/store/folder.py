"""Study folders: their study, the process that works in them, and their finished runs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from analysis.plan.errors import StudyError
from analysis.plan.grid import Run
from analysis.plan.reading import read_toml
from analysis.plan.run_config import difference
from analysis.plan.study import Study
from analysis.store.failures import failure_path
from analysis.store.files import (
    BrokenFileError,
    StoreError,
    cannot_write,
    check_is_no_file,
    check_regular,
    is_of_dead_writer,
    is_of_the_disk,
    remove_checkpoints,
    remove_temporary_files,
    set_aside,
    write_bytes,
    write_text,
)
from analysis.store.row import Record, read_record
from analysis.store.run_file import SCHEMA_VERSION, read_config
from analysis.store.safe_hdf5 import is_sealed
from landscape.results.files import NOT_SUPPORTED, flush, temporary_name
from landscape.results.versions import versions
from ncsam.seal import sealed

TABLES = ("training", "noise", "measure")
"""Keys of a study that hold others."""

EMPTY = (".lock", "lost+found")
"""Names that an empty folder may hold. The root of a file system has the second."""


@contextmanager
def locked(root: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Locks the study folder for this process; makes the folder if it is missing.

    Args:
        root: the folder.
        tell: called with a line if the file system cannot lock. The study continues.

    Raises:
        StoreError: another process works in the folder, it holds something that is no regular file, or it cannot be
            written, now or later in the context.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        check_regular(root)
        lock = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise StoreError(f"out: cannot write to {root}: {error.strerror}") from error
    try:
        check_writable(root)
        _lock(lock, root, tell)
        yield
    except OSError as error:
        if is_of_the_disk(error):
            raise cannot_write(root, error) from error
        raise
    finally:
        os.close(lock)


def _lock(lock: int, root: Path, tell: Callable[[str], None]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StoreError(f"out: another 'ncsam study' is at work in {root}; wait for it") from error
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise StoreError(f"out: cannot lock {root}: {error.strerror}") from error
        tell(
            f"out: the file system of {root} cannot lock ({error.strerror}); the study goes on without: "
            "start no second 'ncsam study' with this folder"
        )


def check_writable(root: Path) -> None:
    """Writes a file of 64 KiB into the folder, and removes it.

    Raises:
        StoreError: the folder cannot be written, such as on a disk that is full or was remounted read-only.
    """
    probe = temporary_name(root / "probe")
    try:
        with probe.open("wb") as file:
            file.write(bytes(1 << 16))
        flush(probe)
    except OSError as error:
        raise cannot_write(root, error) from error
    finally:
        probe.unlink(missing_ok=True)


def open_folder(root: Path, study: Study, runs: list[Run], tell: Callable[[str], None]) -> dict[str, Record]:
    """Checks that the folder belongs to this study, writes `study.toml` into it, and reads the records of its runs.

    Args:
        root: the locked folder.
        study: the study whose runs will be executed.
        runs: the runs of the study. The file of each is opened once.
        tell: called with a line for each broken file, which is set aside so that its run is executed again, and for
            each file of an earlier version, which gets a checksum.

    Returns:
        Path -> record of each finished run.

    Raises:
        StoreError: the folder holds something else, another study, or runs of this study with other settings.
    """
    _check_owner(root, study)
    remove_temporary_files(root)
    records = {}
    for run in runs:
        if (root / run.path).exists():
            try:
                record = _record_as_planned(root, run)
            except BrokenFileError as error:
                tell(f"{error}; set aside as {set_aside(root / run.path).name}, its run is done again")
                continue
            if not is_sealed(root / run.path):
                write_bytes(root / run.path, sealed((root / run.path).read_bytes()))
                tell(
                    f"out: {root / run.path} is of an earlier version and had no checksum; it has one from now on, and "
                    "changed bytes will be found"
                )
            records[run.path] = record
            _remove_leftovers(root / run.path)
    write_study(root, study)
    return records


def look_into_folder(
    root: Path, study: Study, runs: list[Run], tell: Callable[[str], None]
) -> dict[str, Record]:
    """What `open_folder` finds and refuses, of a folder that need not exist. Writes nothing.

    Args:
        root, study, runs: as for `open_folder`.
        tell: called with a line for each broken file, whose run would be executed again.

    Returns:
        Path -> record of each finished run.

    Raises:
        StoreError: as for `open_folder`, or the folder holds something that is no regular file.
    """
    if not root.exists():
        return {}
    if not root.is_dir():
        raise StoreError(f"out: cannot write to {root}: not a folder")
    check_regular(root)
    _check_owner(root, study)
    records = {}
    for run in runs:
        if (root / run.path).exists():
            try:
                records[run.path] = _record_as_planned(root, run)
            except BrokenFileError as error:
                tell(f"{error}; its run would be done again")
    return records


def _record_as_planned(root: Path, run: Run) -> Record:
    """The record of a finished run.

    Raises:
        BrokenFileError: the file is no whole run file.
        StoreError: the run has other settings than the planned one.
    """
    record = read_record(root / run.path)
    if record.fingerprint != run.fingerprint:
        raise StoreError(other_settings(root, run))
    return record


def write_study(root: Path, study: Study) -> None:
    """Writes the study of the folder with all defaults into `study.toml`."""
    content = {
        **study.model_dump(exclude_none=True),
        "resolved": {"versions": versions(), "schema": SCHEMA_VERSION},
    }
    write_text(root / "study.toml", tomli_w.dumps(content))


def check_is_study(root: Path) -> None:
    """Raises FileNotFoundError unless the folder holds a study."""
    check_is_no_file(root)
    if not (root / "study.toml").is_file():
        raise FileNotFoundError(f"results: {root} holds no study.toml; run 'ncsam study' first")


def other_settings(root: Path, run: Run) -> str:
    """The error about a finished run whose settings differ from those of the planned run, with the remedy."""
    stored = read_config(root / run.path).config
    are_measured = stored.measure is not None and run.config.measure is not None
    if are_measured and stored.training_fingerprint == run.config.training_fingerprint:
        remedy = f"measure its runs again by 'ncsam measure {root} --study FILE', which trains nothing"
    else:
        remedy = "choose another --out, or delete the folder to run it anew"
    path = root / run.path
    return f"out: {path} has other settings than the study ({difference(stored, run.config)}); {remedy}"


def written_study(path: Path) -> dict[str, Any]:
    """The settings in a folder's `study.toml`.

    Raises:
        FileNotFoundError: the file does not exist.
        StoreError: the file is not TOML, or not a study.
    """
    try:
        settings = read_toml(path)
    except StudyError as error:
        raise StoreError(f"results: {error}; put the study's file there, or choose another folder") from error
    settings.pop("resolved", None)
    for name in TABLES:
        if not isinstance(settings.get(name, {}), dict):
            raise StoreError(f"results: {path} is no study's: {name} must be a table")
    return settings


def _remove_leftovers(path: Path) -> None:
    """Removes files that finished runs no longer need, which a kill may have left."""
    failure_path(path).unlink(missing_ok=True)
    remove_checkpoints(path)


def _check_owner(root: Path, study: Study) -> None:
    written = root / "study.toml"
    if written.exists():
        stored_study = written_study(written)
        name, dataset = stored_study.get("name"), stored_study.get("dataset")
        if name != study.name:
            raise StoreError(
                f"out: {root} holds the study {name!r}, not {study.name!r}; choose another --out"
            )
        if dataset != study.dataset:
            raise StoreError(
                f"out: {root} holds results on {dataset!r}, not {study.dataset!r}; choose another --out"
            )
        needed = stored_study.get("own_parts")
        absent = [name for name in needed if name not in study.own_parts] if isinstance(needed, dict) else []
        if absent:
            raise StoreError(
                f"out: {root} holds a study with {', '.join(absent)} (own_parts); add --with {absent[0]}, or choose "
                "another --out"
            )
    elif any(entry.name not in EMPTY and not is_of_dead_writer(entry) for entry in root.iterdir()):
        raise StoreError(f"out: {root} is not empty and not a study's folder; choose another --out")
