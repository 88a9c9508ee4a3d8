"""CIFAR-10 and CIFAR-100 in the Python version of their files, read without executing anything in them."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncsam.datasets.split import Dataset, make_dataset
from ncsam.pickled_arrays import Call, PickleError, as_array, read_pickle

BYTES_PER_IMAGE = 3 * 32 * 32


@dataclass(frozen=True)
class Archive:
    """The files of one set, as its authors publish them and torchvision lists them.

    Attributes:
        folder: name of the folder to which the archive unpacks.
        train: file -> MD5 checksum.
        test: file -> MD5 checksum.
        labels: key of the labels within a file.
        num_classes: number of classes.
    """

    folder: str
    train: dict[str, str]
    test: dict[str, str]
    labels: str
    num_classes: int


CIFAR10 = Archive(
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    labels="labels",
    num_classes=10,
)
CIFAR100 = Archive(
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    labels="fine_labels",
    num_classes=100,
)


def cifar10(data_dir: Path | None = None, *, verify: bool = True) -> Dataset:
    """50,000 + 10,000 images of 3 x 32 x 32 in 10 classes (Krizhevsky 2009).

    Args:
        data_dir: the folder `cifar-10-batches-py`, or the folder that holds it, such as torchvision's `root`.
        verify: whether each file must have its published MD5 checksum. If not, files of other images in the same format
            are read too.

    Raises:
        FileNotFoundError: no folder was given, or a file is missing.
        ValueError: a file is not the published one, or holds more than its arrays.
    """
    return _read("cifar10", CIFAR10, data_dir, verify)


def cifar100(data_dir: Path | None = None, *, verify: bool = True) -> Dataset:
    """50,000 + 10,000 images of 3 x 32 x 32 in 100 classes; folder `cifar-100-python`, arguments as for `cifar10`."""
    return _read("cifar100", CIFAR100, data_dir, verify)


def _read(name: str, archive: Archive, data_dir: Path | None, verify: bool) -> Dataset:
    if data_dir is None:
        raise FileNotFoundError(
            f"dataset {name!r}: pass data_dir (on the command line --data-dir), the folder that holds {archive.folder}"
        )
    folder = data_dir if data_dir.name == archive.folder else data_dir / archive.folder
    train, test = (
        _read_split(folder, checksums if verify else dict.fromkeys(checksums, ""), archive)
        for checksums in (archive.train, archive.test)
    )
    return make_dataset(name, train, test, num_classes=archive.num_classes)


def _read_split(folder: Path, checksums: dict[str, str], archive: Archive) -> tuple[Tensor, Tensor]:
    """The images and labels of all files together. An empty checksum is not compared with that of the file."""
    parts = [_read_batch(folder / name, checksum, archive) for name, checksum in checksums.items()]
    pixels, targets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return torch.from_numpy(pixels).view(-1, 3, 32, 32), torch.from_numpy(targets)


def _read_batch(path: Path, checksum: str, archive: Archive) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"data_dir: {path} is missing")
    content = path.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if checksum and found != checksum:
        raise ValueError(f"{path}: its MD5 checksum is {found}, that of the published file {checksum}")
    pixels, labels = read_pixels_and_labels(content, path, archive.labels)
    if not (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.ndim == 2
        and pixels.shape[1] == BYTES_PER_IMAGE
        and isinstance(labels, list)
        and len(labels) == len(pixels) > 0
    ):
        raise ValueError(
            f"{path}: must hold 'data', bytes of shape (n, {BYTES_PER_IMAGE}), and n {archive.labels!r}"
        )
    if not all(type(label) is int and 0 <= label < archive.num_classes for label in labels):
        raise ValueError(
            f"{path}: {archive.labels!r} must be whole numbers from 0 to {archive.num_classes - 1}"
        )
    return np.ascontiguousarray(pixels), np.array(labels, dtype=np.int64)


def read_pixels_and_labels(content: bytes, path: Path, labels: str) -> tuple[Any, Any]:
    """The entries `"data"` and `labels` of a batch's pickled dictionary, as arrays where they are arrays.

    Raises:
        ValueError: the pickle is broken, holds no dictionary, or names anything but arrays.
    """
    try:
        found = read_pickle(io.BytesIO(content))
        if not isinstance(found, dict):
            raise PickleError(f"it must hold a dictionary, holds a {type(found).__name__}")
        # Python 3 may have written the keys as bytes
        pixels, targets = (found.get(key, found.get(key.encode())) for key in ("data", labels))
        return as_array(pixels) if isinstance(pixels, Call) else pixels, targets
    except PickleError as error:
        raise ValueError(f"{path}: is refused: {error}") from error
