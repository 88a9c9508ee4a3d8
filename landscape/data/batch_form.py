"""Checks that a batch has a form that can be run: inputs and targets, or a dict, as tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from landscape.data.places import REMEDY


def check_that_it_is_a_batch(batch: object) -> None:
    """Checks that a batch is inputs and targets. If both are tensors, they must have equally many samples.

    Raises:
        ValueError: the batch has another form.
    """
    remedy = (
        "give a tuple (inputs, targets), or an iterable of such batches, as a DataLoader is; for other batches, say "
        "by forward= how the model is run on one"
    )
    if isinstance(batch, np.ndarray) or (
        isinstance(batch, tuple | list) and any(isinstance(part, np.ndarray) for part in batch)
    ):
        raise ValueError("data: holds NumPy arrays; make tensors of them by torch.from_numpy")
    check_that_none_is_another_array(batch)
    if isinstance(batch, Tensor):
        raise ValueError(
            "data: a batch is a Tensor, not inputs and targets (each part of a list is a batch: give inputs and "
            f"targets as a tuple); {remedy}"
        )
    if not isinstance(batch, tuple | list):
        raise ValueError(f"data: a batch is a {type(batch).__name__}, not inputs and targets; {remedy}")
    if len(batch) != 2:
        raise ValueError(f"data: a batch holds {len(batch)} parts, of which only two would be used; {remedy}")
    for name, part in zip(("inputs", "targets"), batch, strict=True):
        if isinstance(part, list) and part and isinstance(part[0], int | float):
            raise ValueError(f"data: the {name} of a batch are a list of numbers; give torch.tensor({name})")
    if not all(isinstance(part, Tensor) and not part.is_nested for part in batch):
        return
    shapes = [tuple(part.shape) for part in batch]
    if () in shapes or shapes[0][0] != shapes[1][0]:
        raise ValueError(
            f"data: the inputs of a batch are {shapes[0]} but its targets {shapes[1]}, not as many; {remedy}; put a "
            f"Dataset, which holds single samples, into a DataLoader; {REMEDY}"
        )


def check_that_none_is_another_array(data: object) -> None:
    """Refuses arrays of other packages, such as those of a file that are read when they are cut.

    Args:
        data: a batch, or all data: arrays give NumPy arrays where they are taken for an iterable of batches.

    Raises:
        ValueError: the data are one, or hold one.
    """
    parts = (
        data.values() if isinstance(data, Mapping) else data if isinstance(data, tuple | list) else (data,)
    )
    for part in parts:
        if (
            not isinstance(part, Tensor | np.ndarray)
            and hasattr(part, "shape")
            and hasattr(part, "__array__")
        ):
            kind = f"{type(part).__module__.partition('.')[0]}.{type(part).__name__}"
            raise ValueError(
                f"data: holds an array of type {kind}; torch.from_numpy(numpy.asarray(x)) reads it whole, and a "
                "DataLoader of a torch Dataset of its rows streams it"
            )
