"""How a result's fields are described: the unit, the meaning and the dimensions that storage writes down."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LOSS_UNIT = "unit of the loss"
"""The unit of a field whose unit is that of the measured loss. Results with such fields say it in `loss_unit`."""


def loss_unit_field() -> Any:
    """The field `loss_unit` of a result; files that are older than the field hold cross-entropies."""
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
        coordinate: the field holds the coordinates of the dimension of its own name.
        default: value where none is given, as in files that are older than the field.
    """
    metadata = {
        "description": description,
        "unit": unit,
        "dims": tuple(dims),
        "coordinate": coordinate,
    }
    return dataclasses.field(default=default, metadata=metadata)
