"""The types and shapes that the groups of a run file must have; checked before its numbers are used."""

from __future__ import annotations

import h5py
import numpy as np


def check_content(file: h5py.File) -> None:
    """Looks at the history and the labels of an open run file.

    Raises:
        ValueError: a metric that is no line of numbers, one for each epoch; or labels that are not whole numbers
            from 0, as many observed as true ones, below the number of classes.
    """
    epochs = file["history/epoch"].shape
    if len(epochs) != 1 or epochs[0] < 1:
        raise ValueError(f"history/epoch has the shape {epochs}")
    for name, item in file["history"].items():
        if item.dtype.kind not in "iuf" or item.shape != epochs:
            raise ValueError(
                f"history/{name} holds {item.dtype} of shape {item.shape}, not {epochs[0]} numbers"
            )
    clean, observed, transition = (file[f"labels/{name}"] for name in ("clean", "observed", "transition"))
    classes = len(transition)
    if transition.dtype.kind != "f" or transition.shape != (classes, classes):
        raise ValueError(f"labels/transition holds {transition.dtype} of shape {transition.shape}")
    for item in (clean, observed):
        if item.dtype.kind not in "iu" or item.ndim != 1 or item.shape != observed.shape or len(item) == 0:
            raise ValueError(f"{item.name} holds {item.dtype} of shape {item.shape}")
        values = item[()]
        if values.min() < 0 or values.max() >= classes:
            raise ValueError(f"{item.name} holds labels that are none of {classes} classes")
    if not np.isfinite(transition[()]).all():
        raise ValueError("labels/transition holds what is no number")
