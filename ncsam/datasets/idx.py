"""IDX files, the format of the MNIST family: Fashion-MNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from ncsam.datasets.split import Dataset, make_dataset

FASHION_MNIST_PACKAGE = Path("/usr/share/datasets/fashion-mnist")
"""The folder in which Debian's package `dataset-fashion-mnist` puts its files."""

MAX_BYTES = 4 * 2**30
"""Most bytes of one file. EMNIST, the largest set of the family, has 0.6 GB of images."""

MOST_INFLATED = 1032
"""The most that gzip makes of a byte (zlib's technical notes)."""


def fashion_mnist(data_dir: Path | None = None) -> Dataset:
    """60,000 + 10,000 images of 28 x 28.

    Args:
        data_dir: the folder of the IDX files, plain or gzipped, or the folder that holds torchvision's
            `FashionMNIST/raw`. If not given, the folder of Debian's package.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is no IDX file of images or of labels, or their numbers differ.
    """
    folders = [FASHION_MNIST_PACKAGE]
    if data_dir is not None:
        folders = [data_dir, data_dir / "FashionMNIST" / "raw", data_dir / "raw"]
    folder = next((f for f in folders if _find_idx(f, "train-images-idx3-ubyte")), None)
    if folder is None:
        raise FileNotFoundError(
            "dataset 'fashion-mnist': no train-images-idx3-ubyte[.gz] in "
            + ", ".join(map(str, folders))
            + "; pass data_dir (on the command line --data-dir), or install Debian's dataset-fashion-mnist"
        )
    return make_dataset("fashion-mnist", *(_read_split(folder, p) for p in ("train", "t10k")))


def _read_split(folder: Path, prefix: str) -> tuple[Tensor, Tensor]:
    contents = []
    for stem, dimensions in ((f"{prefix}-images-idx3-ubyte", 3), (f"{prefix}-labels-idx1-ubyte", 1)):
        path = _find_idx(folder, stem)
        if path is None:
            raise FileNotFoundError(f"dataset 'fashion-mnist': {folder / stem}[.gz] is missing")
        contents.append(read_idx(path, dimensions))
    images, targets = contents
    if len(images) != len(targets):
        raise ValueError(f"{folder}: {len(images)} {prefix} images but {len(targets)} labels")
    return images.unsqueeze(1), targets.long()


def _find_idx(folder: Path, stem: str) -> Path | None:
    paths = (folder / stem, folder / f"{stem}.gz")
    return next((path for path in paths if path.is_file()), None)


def _most_bytes(path: Path) -> int:
    """Bytes that a file may hold: memory for more would be asked for in vain."""
    size = path.stat().st_size
    return size * MOST_INFLATED if path.suffix == ".gz" else size


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Reads an IDX file of bytes, plain or gzipped, into a uint8 tensor.

    Raises:
        ValueError: the file is no IDX file of unsigned bytes with that many dimensions, or is cut short.
    """
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
                raise ValueError(f"{path}: not an IDX file of unsigned bytes with {dimensions} dimensions")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = math.prod(shape)
            if size > MAX_BYTES:
                raise ValueError(
                    f"{path}: its shape {shape} needs {size / 2**30:.0f} GiB, more than any such set"
                )
            # no more than the file can hold; one byte more than expected tells a file that is too long
            content = file.read(min(size, _most_bytes(path)) + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: broken gzip file ({error})") from error
    if len(content) != size:
        found = "more" if len(content) > size else len(content)
        raise ValueError(f"{path}: {found} bytes of data where shape {shape} needs {size}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(shape)
