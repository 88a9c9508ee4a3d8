"""A user's own set in one NumPy file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ncsam.data_bounds import MAX_CLASSES, check_classes, check_size
from ncsam.datasets.classes import number_of_classes
from ncsam.datasets.split import Dataset, make_dataset

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("observed", "num_classes")
CHANNELS = (1, 3, 4)
MAX_BYTES = 64 * 2**30
"""A data set that would need more memory than this is refused before it is read."""


def npz(data_dir: Path | None = None) -> Dataset:
    """A data set from a `.npz` file with the arrays `x_train`, `y_train`, `x_test`, `y_test`.

    Bytes are images: (n, height, width), (n, height, width, channels) or (n, channels, height, width), with 1, 3
    or 4 channels. If two axes could be the channels, the last axis is. Floating arrays are features of any shape, and
    are not normalized. Those with four axes of which the last alone could be the channels are images (n, height, width,
    channels), and get the channels before height and width. Labels are whole numbers from 0. An array `observed` holds
    the labels that annotators gave to the training samples. If no label is of some class below the largest, one number
    `num_classes` must say so.

    Args:
        data_dir: the file, or a folder with the file `data.npz`.

    Raises:
        FileNotFoundError: no file was given, or the file is missing.
        ValueError: the file is broken or holds pickled objects, or the arrays do not fit together.
    """
    if data_dir is None:
        raise FileNotFoundError(
            "dataset 'npz': pass data_dir (on the command line --data-dir), a .npz file or a folder that holds data.npz"
        )
    path = data_dir / "data.npz" if data_dir.is_dir() else data_dir
    if not path.is_file():
        raise FileNotFoundError(f"data_dir: {path} is missing")
    arrays = _read(path)
    train, test = (
        (_samples(path, arrays, f"x_{part}"), _labels(path, arrays, f"y_{part}"))
        for part in ("train", "test")
    )
    observed = _labels(path, arrays, "observed") if "observed" in arrays else None
    for field, expected, found in (
        ("y_train", len(train[0]), len(train[1])),
        ("y_test", len(test[0]), len(test[1])),
        ("observed", len(train[0]), len(train[0]) if observed is None else len(observed)),
    ):
        if expected != found:
            raise ValueError(f"{path}: {field!r} has {found} labels for {expected} samples")
    if train[0].shape[1:] != test[0].shape[1:] or train[0].dtype != test[0].dtype:
        raise ValueError(
            f"{path}: 'x_train' is {_describe(train[0])}, 'x_test' {_describe(test[0])}: they must be alike"
        )
    labels = {"y_train": train[1], "y_test": test[1]} | ({} if observed is None else {"observed": observed})
    remedy = "add an array num_classes = {classes} to the file"
    classes = number_of_classes(labels, _said_classes(path, arrays), str(path), remedy)
    return make_dataset("npz", train, test, num_classes=classes, observed=observed)


def _read(path: Path) -> Mapping[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            check_size(file, MAX_BYTES)
            arrays = {name: file[name] for name in (*ARRAYS, *OPTIONAL) if name in file}
    except Exception as error:  # a broken file may raise anything
        raise ValueError(f"{path}: is not a .npz file of numbers ({error})") from error
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f"{path}: has no array {missing[0]!r}; it must hold {', '.join(ARRAYS)}")
    return arrays


def _samples(path: Path, arrays: Mapping[str, np.ndarray], name: str) -> Tensor:
    array = arrays[name]
    if array.dtype.kind == "f" and array.ndim >= 2:
        if array.ndim == 4 and array.shape[3] in CHANNELS and array.shape[1] not in CHANNELS:
            array = array.transpose(0, 3, 1, 2)
        # models do not train in float16 or in types longer than float64
        return torch.from_numpy(
            array.astype(np.float64 if array.dtype == np.float64 else np.float32, order="C")
        )
    if array.dtype == np.uint8 and array.ndim == 3:
        return torch.from_numpy(array).unsqueeze(1)
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] in CHANNELS:
        return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[1] in CHANNELS:
        return torch.from_numpy(array)
    raise ValueError(
        f"{path}: {name!r} must be bytes of shape (n, height, width), with 1, 3 or 4 channels before or after "
        f"them, or floating (n, ...); got {array.dtype} of shape {array.shape}"
    )


def _said_classes(path: Path, arrays: Mapping[str, np.ndarray]) -> int | None:
    if "num_classes" not in arrays:
        return None
    array = arrays["num_classes"]
    if array.size != 1 or array.dtype.kind not in "iu" or not 1 <= int(array.item()) <= MAX_CLASSES:
        raise ValueError(
            f"{path}: 'num_classes' must be one whole number from 1 to {MAX_CLASSES}, got {array.dtype} of shape "
            f"{array.shape}"
        )
    return int(array.item())


def _labels(path: Path, arrays: Mapping[str, np.ndarray], name: str) -> Tensor:
    array = arrays[name]
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) == 0 or array.min() < 0:
        raise ValueError(
            f"{path}: {name!r} must be whole numbers from 0 of shape (n,), "
            f"got {array.dtype} of shape {array.shape}"
        )
    # before int64, in which larger numbers become negative
    check_classes(int(array.max()), f"{path}: {name!r}")
    return torch.from_numpy(array.astype(np.int64))


def _describe(samples: Tensor) -> str:
    return f"{str(samples.dtype).removeprefix('torch.')} of shape {tuple(samples.shape)}"
