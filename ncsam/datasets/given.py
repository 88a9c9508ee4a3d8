"""The data that a caller gives, in any of the forms that are common, as samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from ncsam.datasets.loaded import Loaded, check_samples
from ncsam.datasets.split import Samples, Split

NO_DATASETS = (Tensor, np.ndarray, tuple, dict, str)
"""Types that have items, but whose items are no samples."""


def as_samples(name: str, data: Any, batch_size: int) -> Samples:
    """The caller's data as samples.

    Raises:
        TypeError: data of another type.
        ValueError: no samples, or a DataLoader that sets the order or the batch size.
    """
    if isinstance(data, Split | Loaded):
        if not len(data):
            raise ValueError(f"{name}: holds no samples")
        return data
    is_loader = isinstance(data, DataLoader)
    is_dataset = hasattr(data, "__getitem__") and not isinstance(data, NO_DATASETS)
    if not is_loader and not is_dataset:
        raise TypeError(
            f"{name}: must be a Split, a map-style dataset or a DataLoader, got {type(data).__name__}; "
            "ncsam.Split(inputs, targets) makes a Split of tensors"
        )
    if is_loader and name == "train" and data.batch_size != batch_size:
        raise ValueError(
            f"batch_size: is {batch_size}, but {data.batch_size} in the DataLoader; give the same"
        )
    check_samples(name, data)
    return Loaded(data, batch_size=batch_size)
