"""Descriptions of a result's fields: unit, meaning and dimensions, which storage writes down."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LOSS_UNIT = "unit of the loss"
"""The unit of a field that has the unit of the measured loss. The field `loss_unit` of the result holds that unit."""


def loss_unit_field() -> Any:
    """The field `loss_unit` of a result. Files that are older than the field hold cross-entropies, in nat."""
    return described("unit of the loss: nat for log-likelihoods, else empty", default="nat")


def described(
    description: str,
    *,
    unit: str = "",
    dims: Sequence[str] = (),
    coordinate: bool = False,
    default: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field that storage can write down.

    Args:
        description: what the field holds, in a few words.
        unit: unit of the values; empty for plain numbers.
        dims: names of an array's dimensions.
        coordinate: whether the field holds the coordinates of the dimension that has its name.
        default: value if none is given, such as in files that are older than the field.
    """
    metadata = {
        "description": description,
        "unit": unit,
        "dims": tuple(dims),
        "coordinate": coordinate,
    }
    return dataclasses.field(default=default, metadata=metadata)
