"""Data sets by name, held in memory as they are stored; one file a format.

dataset = load_dataset("fashion-mnist", train_samples=10_000, seed=0)
inputs = dataset.train.batch(indices)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ncsam.datasets.cifar import cifar10, cifar100
from ncsam.datasets.given import as_samples
from ncsam.datasets.idx import FASHION_MNIST_PACKAGE, fashion_mnist, read_idx
from ncsam.datasets.images import images
from ncsam.datasets.kept import kept_or_read, part_of
from ncsam.datasets.loaded import Loaded
from ncsam.datasets.npz import npz
from ncsam.datasets.packaged import digits, mnist_5k
from ncsam.datasets.split import Dataset, Samples, Split, make_dataset
from ncsam.datasets.words import word_languages
from ncsam.options import Registry
from ncsam.plain_numbers import with_plain_numbers

__all__ = [
    "DATASETS",
    "DATASET_REGISTRY",
    "FASHION_MNIST_PACKAGE",
    "Dataset",
    "Loaded",
    "Samples",
    "Split",
    "as_samples",
    "load_dataset",
    "make_dataset",
    "read_idx",
]

DATASETS: dict[str, Callable[..., Dataset]] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "images": images,
    "mnist-5k": mnist_5k,
    "npz": npz,
    "word-languages": word_languages,
}
"""Name -> function that loads the data set from a folder; its docstring says where it looks and how it splits."""

DATASET_REGISTRY = Registry("dataset", DATASETS)
"""The data sets. A data set of your own is a function that takes a folder or None and returns a `Dataset`."""


@with_plain_numbers
def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    train_samples: int | None = None,
    test_samples: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
) -> Dataset:
    """Loads a data set by name.

    The two that were read last are kept for the next call, as long as no file changed and they are not too large. Each
    call returns tensors of its own.

    Args:
        name: one of `DATASETS`.
        data_dir: the folder of the files, or for `"npz"` the file; the packaged data sets need none.
        train_samples: number of training samples to keep; all if not given. They are drawn without regard to their
            classes, and `train_indices` says which. The normalization stays that of the whole training set.
        test_samples: number of test samples to keep, drawn in the same way.
        seed: seed of these draws.
        image_size: side in pixels, to which the files of `"images"` are resized.

    Raises:
        ValueError: unknown name, more samples than the data set has, or a file of another format.
        FileNotFoundError: the files or the package that holds them are missing.
    """
    read = DATASET_REGISTRY.entry(name)
    if image_size is not None and name != "images":
        raise ValueError(f"image_size: only 'images' is resized, got {image_size} for {name!r}")
    folder = None if data_dir is None else Path(data_dir)
    if folder is not None and not (folder.is_dir() or (name == "npz" and folder.is_file())):
        raise FileNotFoundError(f"data_dir: {data_dir} is not a folder")
    options = {} if image_size is None else {"size": image_size}
    whole, is_kept = kept_or_read((name, folder, image_size), folder, lambda: read(folder, **options))
    of_train = (
        None if train_samples is None else _drawn("train_samples", train_samples, len(whole.train), seed)
    )
    of_test = None if test_samples is None else _drawn("test_samples", test_samples, len(whole.test), seed)
    if not is_kept and of_train is None and of_test is None:
        return whole
    # what the caller writes to the tensors must not reach the next one who asks
    indices, observed = (
        None if tensor is None else tensor.clone() if of_train is None else tensor[of_train]
        for tensor in (whole.train_indices, whole.observed)
    )
    assert indices is not None
    return replace(
        whole,
        train=part_of(whole.train, of_train),
        test=part_of(whole.test, of_test),
        train_indices=indices,
        observed=observed,
    )


def _drawn(field: str, samples: int, count: int, seed: int) -> Tensor:
    """Positions of `samples` of `count` samples, ascending."""
    if not 1 <= samples <= count:
        raise ValueError(f"{field}: must be from 1 to {count}, the number of samples, got {samples}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed), device="cpu")
    return order[:samples].sort().values
