"""One run's HDF5 file, read without trust."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from torch import nn

from analysis.grid import Run
from analysis.store.files import BrokenFileError, StoreError, is_sealed, write_text
from analysis.store.schema import FIRST_SEALED, SCHEMA_VERSION, upgraded
from analysis.store.trust import check_trusted
from ncsam.training import METRICS


def read_config(path: Path) -> dict[str, Any]:
    """The `/config` of a run file: configuration, fingerprint, versions, device, choice.

    A file of an older schema reads as one of today's.

    Raises:
        FileNotFoundError: no such file.
        BrokenFileError: not a whole run file.
    """
    with opened(path) as file:
        return config_of(file)


def config_of(file: h5py.File) -> dict[str, Any]:
    """`read_config` of an open file."""
    attributes = dict(file["config"].attrs)
    for name in ("config", "hyperparameters", "versions"):
        attributes[name] = json.loads(attributes[name])
    if attributes["schema_version"] < SCHEMA_VERSION:
        attributes["config"] = upgraded(attributes["config"])
        attributes["fingerprint"] = Run(attributes["config"], "").fingerprint
    return attributes


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A run file, open for reading, once its checksum and all its objects have been looked at.

    Raises:
        FileNotFoundError: no such file.
        BrokenFileError: not a whole run file, not the bytes that were written, or one that leads elsewhere; also
            for what turns out to be missing while it is read.
        StoreError: written by a later version.
    """
    if not path.exists():
        raise FileNotFoundError(f"file: {path} does not exist")
    if not path.is_file():
        raise BrokenFileError(f"file: {path} is not a file")
    has_seal = is_sealed(path)
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise BrokenFileError(
            f"file: {path} is not a whole HDF5 file; if it was a run's, delete it and run the study again"
        ) from error
    with file:
        try:
            _check_schema(file, path, has_seal)
            check_trusted(file, path)
            yield file
        except (KeyError, IndexError, TypeError, OSError, RuntimeError, json.JSONDecodeError) as error:
            words = " ".join(str(error).split())
            raise BrokenFileError(f"file: {path} does not hold what a run's file holds: {words}") from error


def _check_schema(file: h5py.File, path: Path, has_seal: bool) -> None:
    if "config" not in file or "fingerprint" not in file["config"].attrs:
        raise BrokenFileError(f"file: {path} is an HDF5 file, but not of a run")
    schema = int(file["config"].attrs["schema_version"])
    if schema > SCHEMA_VERSION:
        raise StoreError(
            f"file: {path} has schema {schema}; this version of ncsam reads up to {SCHEMA_VERSION}: use a later one"
        )
    if schema >= FIRST_SEALED and not has_seal:
        raise BrokenFileError(f"file: {path} has lost its checksum: it was cut short or written to")


def load_weights(path: str | Path, model: nn.Module) -> None:
    """Loads a run file's `/weights` into a model of the same architecture.

    Raises:
        FileNotFoundError, BrokenFileError, StoreError: as `opened` does.
        RuntimeError: a model of another architecture.
    """
    with opened(Path(path)) as file:
        state = {name: torch.from_numpy(np.asarray(data[()])) for name, data in file["weights"].items()}
    model.load_state_dict(state)


def failure_path(path: Path) -> Path:
    """Where the error of a failed run is written."""
    return path.with_suffix(".failed")


def write_failure(path: Path, error: str) -> None:
    """Writes down why the run of the file `path` failed; a later success takes it away."""
    write_text(failure_path(path), f"{error}\n")


def read_history(path: Path) -> pd.DataFrame:
    """One row an epoch, with the run's identity in the first columns."""
    with opened(path) as file:
        return pd.DataFrame({**identity(config_of(file)), **metrics_of(file)})


def metrics_of(file: h5py.File) -> dict[str, np.ndarray]:
    """A metric -> its value after each epoch, from an open run file; one that came after it was written is NaN."""
    found = {name: data[()] for name, data in file["history"].items()}
    return found | {name: np.full(len(found["epoch"]), np.nan) for name in METRICS if name not in found}


def identity(stored: dict[str, Any]) -> dict[str, Any]:
    """Which run it is, from what `read_config` returns."""
    config = stored["config"]
    return {
        "dataset": config["dataset"],
        "noise_kind": config["noise"]["kind"],
        "noise_rate": config["noise"]["rate"],
        "method": config["method"]["label"],
        "seed": config["seed"],
    }
