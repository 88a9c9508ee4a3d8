"""The table of a study, with one row for each run, and the index file that holds the table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

import landscape
from analysis.plan.grid import Run, final_runs
from analysis.plan.reading import read_study
from analysis.plan.run_config import Identity
from analysis.store.definitions import definitions
from analysis.store.files import BrokenFileError, StoreError, check_is_no_file, check_regular
from analysis.store.row import COLUMNS, TEXTS, Record, check_settings, read_record
from analysis.store.run_file import config_of, opened, read_history
from analysis.store.safe_hdf5 import check_trusted, checksum_of, is_sealed
from analysis.store.sealed_file import sealed_file

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Index:
    """The content of `study.h5`.

    Attributes:
        table: one row for each finished run.
        runs: paths of the run files in the study folder, in the order of the table.
        fingerprint: digest of all these files, which changes with any of their results.
        files: digest of all run files that were in the folder. Those that are broken or of other settings have no row.
    """

    table: pd.DataFrame
    runs: list[str]
    fingerprint: str
    files: str


def write_index(root: Path, runs: list[Run], records: dict[str, Record]) -> pd.DataFrame:
    """Writes `study.h5`: the table of all finished runs, and links to their files. Returns the table.

    Args:
        root: the study folder.
        runs: the runs, in the order of the table.
        records: path -> record of each run that has finished.
    """
    index = _index_of(root, runs, records, _fingerprint_of(root, run_paths(root)))
    _write(root, index)
    return index.table


def _index_of(root: Path, runs: list[Run], records: dict[str, Record], files: str) -> Index:
    import pandas as pd  # a worker writes files without pandas, which loads slowly

    finished = [run.path for run in runs if run.path in records]
    table = pd.DataFrame([records[path].row for path in finished])
    return Index(table, finished, _fingerprint_of(root, finished), files)


def _write(root: Path, index: Index) -> None:
    table = index.table
    with sealed_file(root / "study.h5") as file:
        columns = file.create_group("table")
        for name in table.columns:
            values = table[name]
            columns[name] = values.to_numpy() if values.dtype.kind in "fiub" else list(map(str, values))
        columns.attrs["order"] = json.dumps(list(table.columns))
        file.attrs["fingerprint"], file.attrs["files"] = index.fingerprint, index.files
        file.attrs["definitions"] = definitions()
        # an attribute cannot hold thousands of paths
        file.create_dataset("runs", data=index.runs, dtype=h5py.string_dtype())
        for path in index.runs:
            file[f"links/{path.removesuffix('.h5')}"] = h5py.ExternalLink(path, "/")


def read_index(root: Path) -> Index:
    """The index of a study folder.

    It is made anew from the run files if it is missing, because the study was stopped before its end; if it is broken
    or was changed; if its columns were computed in another way than now; or if the run files are no longer those that
    it was made of.

    Raises:
        FileNotFoundError: the folder or its index does not exist.
        StoreError: the index is not believed, and there is no run file from which a new one could be made.
    """
    path = root / "study.h5"
    check_is_no_file(root)
    if not (path.exists() or path.is_symlink()):
        absent = f"results: {root} holds no study.h5"
        if not (root / "study.toml").is_file():
            raise FileNotFoundError(f"{absent}; run 'ncsam study' first")
        # the study was stopped before its end
        return _made_anew(root, BrokenFileError(absent))
    check_regular(root, besides=("study.h5",))
    try:
        index = _believed(path)
        _check_files(root, index)
        return index
    except BrokenFileError as doubt:
        return _made_anew(root, doubt)


def _believed(path: Path) -> Index:
    """The content of an index that is sealed, leads nowhere else, and has all columns as they are computed now."""
    import pandas as pd  # a worker writes files without pandas, which loads slowly

    if path.is_symlink() or not path.is_file():
        raise BrokenFileError(f"file: {path} is not a regular file")
    if not is_sealed(path):
        raise BrokenFileError(f"file: {path} has no checksum: it was written to, or by an earlier version")
    try:
        with h5py.File(path, "r") as file:
            # not checked: the links to the run files, which are for other programs
            check_trusted(file, path, besides=("links",))
            group, runs = file["table"], file["runs"].asstr()[()].tolist()
            columns = {name: _column(group[name], len(runs)) for name in json.loads(group.attrs["order"])}
            fingerprint, files = str(file.attrs["fingerprint"]), str(file.attrs["files"])
            defined = str(file.attrs.get("definitions", ""))
        settings = [columns[name] for name in ("hyperparameters", "tuned", "changed")] if runs else []
        for texts in set(zip(*settings, strict=True)):
            check_settings(*texts)
    except StoreError:
        raise
    except Exception as error:  # a broken file may raise anything
        words = " ".join(str(error).split())
        raise BrokenFileError(f"file: {path} is not a study's index: {words}") from error
    if defined != definitions():
        raise BrokenFileError(
            f"file: {path} has columns that another version of ncsam computed in another way"
        )
    missing = [name for name in COLUMNS if name not in columns] if runs else []
    if missing:
        raise BrokenFileError(f"file: {path} lacks the column {missing[0]!r}")
    inside = path.parent.resolve()
    if not all((path.parent / run).resolve().is_relative_to(inside) for run in runs):
        raise BrokenFileError(f"file: {path} names a run outside of the study's folder")
    return Index(pd.DataFrame(columns), runs, fingerprint, files)


def _check_files(root: Path, index: Index) -> None:
    """Checks that the folder has the run files that it had when the index was made.

    The last line of each file tells its checksum, so that thousands of files take less than a second. Only the files
    that are newer than the index are read whole.

    Raises:
        BrokenFileError: a run file was added, removed or replaced since, or its bytes have changed.
    """
    found = run_paths(root)
    if _fingerprint_of(root, found) != index.files:
        raise BrokenFileError(f"file: {root / 'study.h5'} was made of other run files than there are now")
    written = (root / "study.h5").stat().st_mtime_ns
    for path in found:
        if (root / path).stat().st_mtime_ns > written:
            is_sealed(root / path)


def run_paths(root: Path) -> list[str]:
    """The paths of all files in the folder that may be files of final runs."""
    return sorted(path.relative_to(root).as_posix() for path in (root / "runs").rglob("*.h5"))


def _column(item: h5py.Dataset, length: int) -> Any:
    name = item.name.removeprefix("/table/")
    is_text = h5py.check_string_dtype(item.dtype) is not None
    if is_text != (name in TEXTS) or not (is_text or item.dtype.kind in "fiub") or item.shape != (length,):
        raise ValueError(f"{name} holds {item.dtype} of shape {item.shape}")
    values = item.asstr()[()] if is_text else item[()]
    if is_text and not all(map(str.isprintable, values)):
        raise ValueError(f"{name} holds what cannot be printed")
    return values


def _made_anew(root: Path, doubt: BrokenFileError) -> Index:
    """A new index from the whole run files in the folder. It is also written, if the folder is writable."""
    try:
        runs = final_runs(read_study(root / "study.toml"))
    except (FileNotFoundError, ValueError) as error:
        raise StoreError(f"{doubt}; it cannot be made anew, as {error}") from error
    # before the files are read: the index of a study that goes on meanwhile does not fit its files, and is made again
    files = _fingerprint_of(root, run_paths(root))
    records = {}
    for run in runs:
        with suppress(FileNotFoundError, StoreError):
            record = read_record(root / run.path)
            if record.fingerprint == run.fingerprint:
                records[run.path] = record
    if not records:
        raise StoreError(
            f"{doubt}; it cannot be made anew, as there is no whole run file; run 'ncsam study' again"
        )
    index = _index_of(root, runs, records, files)
    with suppress(OSError):
        _write(root, index)
    return index


def read_table(root: str | Path) -> pd.DataFrame:
    """The table of all runs, one row for each run.

    Raises:
        FileNotFoundError: the folder or its index does not exist.
        StoreError: no run has finished.
    """
    table = read_index(Path(root)).table
    if not len(table.columns):
        raise StoreError(f"results: no run of {root} has finished")
    return table


def run_files(root: Path) -> list[Path]:
    """The files of the runs in the index, in the order of the index.

    Raises:
        FileNotFoundError, StoreError: as for `read_index`.
    """
    return [root / path for path in read_index(root).runs]


def fingerprint(root: Path) -> str:
    """The digest of all files of the index, which changes with any of their results."""
    return read_index(root).fingerprint


def _fingerprint_of(root: Path, paths: Sequence[str]) -> str:
    """A digest of the runs' files. Settings alone do not decide results: a machine or a library may change them."""
    return hashlib.sha256(
        json.dumps([(path, checksum_of(root / path)) for path in paths]).encode()
    ).hexdigest()


def read_histories(root: str | Path) -> pd.DataFrame:
    """The histories of all final runs, one row for each epoch."""
    import pandas as pd  # a worker writes files without pandas, which loads slowly

    return pd.concat([read_history(path) for path in run_files(Path(root))], ignore_index=True)


@dataclass(frozen=True)
class StoredResult:
    """A result in a run file, which is read when it is asked for.

    Attributes:
        identity: of the run.
        path: the run file.
        name: of the group in the file.
    """

    identity: Identity
    path: Path
    name: str

    def read(self) -> Any:
        """The result. The file is opened and checked anew."""
        with opened(self.path) as file:
            return landscape.load(file, self.name)


def read_together(stored: Sequence[StoredResult]) -> list[Any]:
    """The results, in their order. Each file is opened and checked once."""
    found: dict[StoredResult, Any] = {}
    for path in dict.fromkeys(each.path for each in stored):
        with opened(path) as file:
            found |= {each: landscape.load(file, each.name) for each in stored if each.path == path}
    return [found[each] for each in stored]


def find_results(root: Path, names: Sequence[str]) -> dict[str, list[StoredResult]]:
    """For each name, the results of all runs that have a group of this name. Each file is opened and checked once."""
    found: dict[str, list[StoredResult]] = {name: [] for name in names}
    for _, each in _stored(root, names):
        found[each.name].append(each)
    return found


def read_results(root: Path, name: str) -> list[tuple[Identity, Any]]:
    """(identity of the run, its result in the group `name`) for all runs that have the result."""
    return read_several_results(root, [name])[name]


def read_several_results(root: Path, names: Sequence[str]) -> dict[str, list[tuple[Identity, Any]]]:
    """What `read_results` returns, for each of several names. Each file is opened and checked once."""
    found: dict[str, list[tuple[Identity, Any]]] = {name: [] for name in names}
    for file, each in _stored(root, names):
        found[each.name].append((each.identity, landscape.load(file, each.name)))
    return found


def _stored(root: Path, names: Sequence[str]) -> Iterator[tuple[h5py.File, StoredResult]]:
    """The results that the runs have of these names, each with its open file."""
    for path in run_files(root) if names else ():
        with opened(path) as file:
            identity = config_of(file).config.identity
            for name in names:
                if name in file:
                    yield file, StoredResult(identity, path, name)
