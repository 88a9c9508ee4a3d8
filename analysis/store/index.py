"""The index of a study: a table of all runs' scalars, and links to their files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import pandas as pd

import landscape
from analysis.grid import Run
from analysis.store.files import StoreError, replace_file
from analysis.store.folder import first_difference, how_trained
from analysis.store.record import Record
from analysis.store.run_file import config_of, identity, opened, read_config, read_history


def write_index(root: Path, runs: list[Run], records: dict[str, Record]) -> pd.DataFrame:
    """Writes `study.h5`: a table of all finished runs' scalars, and links to their files. Returns the table.

    Args:
        root: the study folder.
        runs: in the order of the table.
        records: of those that have finished, by path.
    """
    finished = [run.path for run in runs if run.path in records]
    table = pd.DataFrame([records[path].row for path in finished])

    def write_to(beside: Path) -> None:
        with h5py.File(beside, "w", driver="core", backing_store=False) as file:
            columns = file.create_group("table")
            for name in table.columns:
                values = table[name]
                columns[name] = values.to_numpy() if values.dtype.kind in "fiub" else list(map(str, values))
            columns.attrs["order"] = json.dumps(list(table.columns))
            file.attrs["fingerprint"] = _fingerprint_of([records[path].fingerprint for path in finished])
            # thousands of paths are more than an attribute holds
            file.create_dataset("runs", data=finished, dtype=h5py.string_dtype())
            for path in finished:
                file[f"links/{path.removesuffix('.h5')}"] = h5py.ExternalLink(path, "/")
            file.flush()
            content = file.id.get_file_image()
        beside.write_bytes(content)

    replace_file(root / "study.h5", write_to)
    return table


def read_table(root: str | Path) -> pd.DataFrame:
    """The table of all runs' scalars, one row a run.

    Raises:
        FileNotFoundError: no folder, or no index in it.
        StoreError: no run has finished.
    """
    with _index(Path(root)) as file:
        group = file["table"]
        order = json.loads(group.attrs["order"])
        columns = {
            name: group[name].asstr()[()] if h5py.check_string_dtype(group[name].dtype) else group[name][()]
            for name in order
        }
    if not columns:
        raise StoreError(f"results: no run of {root} has finished")
    return pd.DataFrame(columns)


def read_tables(roots: Sequence[Path]) -> pd.DataFrame:
    """The tables of several studies as one.

    Raises:
        FileNotFoundError, StoreError: as `read_table` does; or two studies hold runs that a claim could not tell
            apart, of the same method, data, noise and seed; or train or measure in other ways on the same data and
            noise, where a claim would compare their methods; or had other data of the same name.
    """
    tables = [read_table(root).assign(study=str(root)) for root in roots]
    joined = pd.concat(tables, ignore_index=True)
    which = ["dataset", "noise_kind", "noise_rate", "method", "seed"]
    again = joined[joined.duplicated(which)]
    if len(again):
        first = again.iloc[0]
        before = joined[(joined[which] == first[which]).all(axis=1)]["study"].iloc[0]
        raise StoreError(
            f"results: {before} and {first['study']} both hold {first['method']}, {first['dataset']}, "
            f"{first['noise_kind']} {first['noise_rate']:.0%}, seed {first['seed']}; judge them apart"
        )
    trained = {str(root): how_trained(root) for root in roots} if len(roots) > 1 else {}
    for (dataset, noise), of_data in joined.groupby(["dataset", "noise_kind"], sort=False):
        one, *others = of_data["study"].unique()
        for other in others:
            if trained[one] != trained[other]:
                field, *both = first_difference(trained[one], trained[other])
                raise StoreError(
                    f"results: {one} and {other} train or measure in other ways on {dataset}, {noise} noise ({field}: "
                    f"{both[0]!r} and {both[1]!r}); judge them apart"
                )
            data = {_data_of(Path(one)), _data_of(Path(other))} - {""}
            if len(data) > 1:
                raise StoreError(
                    f"results: {one} and {other} had other data by the name of {dataset}; judge them apart"
                )
    return joined


def _data_of(root: Path) -> str:
    """The digest of a study's data; empty if its files are older than such digests."""
    return str(read_config(run_files(root)[0]).get("data", ""))


def run_files(root: Path) -> list[Path]:
    """The files of the runs in the index, in its order.

    Raises:
        FileNotFoundError, StoreError: no index, or a broken one, or one that leads out of the folder.
    """
    with _index(root) as file:
        paths = file["runs"].asstr()[()].tolist() if "runs" in file else json.loads(file.attrs["runs"])
    inside = root.resolve()
    for path in paths:
        if not (root / path).resolve().is_relative_to(inside):
            raise StoreError(
                f"results: {root / 'study.h5'} names {path!r}, which lies outside the study's folder"
            )
    return [root / path for path in paths]


def fingerprint(root: Path) -> str:
    """Of all runs in the index: another one means other results."""
    with _index(root) as file:
        return str(file.attrs["fingerprint"])


def _fingerprint_of(fingerprints: list[str]) -> str:
    return hashlib.sha256("".join(sorted(fingerprints)).encode()).hexdigest()


@contextmanager
def _index(root: Path) -> Iterator[h5py.File]:
    path = root / "study.h5"
    if not path.is_file():
        raise FileNotFoundError(f"results: {root} holds no study.h5; run 'ncsam study' first")
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise StoreError(f"results: {path} is not a whole HDF5 file; run 'ncsam study' again") from error
    with file:
        try:
            yield file
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise StoreError(f"results: {path} is not a study's index; run 'ncsam study' again") from error


def read_histories(root: str | Path) -> pd.DataFrame:
    """All final runs' histories, one row an epoch."""
    return pd.concat([read_history(path) for path in run_files(Path(root))], ignore_index=True)


def read_results(root: Path, name: str) -> list[tuple[dict[str, Any], Any]]:
    """(identity of the run, result in the group `name`) of all runs that have it."""
    found = []
    for path in run_files(root):
        with opened(path) as file:
            if name in file:
                found.append((identity(config_of(file)), landscape.load(file, name)))
    return found
