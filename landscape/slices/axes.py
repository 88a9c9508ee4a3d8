"""The multiples of a direction at which a slice is evaluated."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from landscape.results.fields import FloatArray


def coordinates(extent: float, steps: int) -> FloatArray:
    """`steps` evenly spaced values from -extent to extent; the middle one of an odd number is exactly 0.

    Raises:
        ValueError: the extent is not a positive, finite number, or there are fewer than 2 steps.
    """
    if not isinstance(extent, Real) or not 0 < extent < float("inf"):
        raise ValueError(f"extent: must be a number, positive and finite, got {extent!r}")
    if not isinstance(steps, Integral) or steps < 2:
        raise ValueError(f"steps: must be a whole number, at least 2, got {steps!r}")
    return extent * ((2 * np.arange(steps, dtype=np.float64) - (steps - 1)) / (steps - 1))


def pair_of(name: str, value: Any) -> tuple[Any, Any]:
    """The values for both axes, from one value for both or from a pair.

    Raises:
        ValueError: the value is a tuple or list of another length.
    """
    if not isinstance(value, tuple | list):
        return value, value
    if len(value) != 2:
        raise ValueError(f"{name}: must be one number for both axes or a pair, got {value!r}")
    return value[0], value[1]


def axis_of(name: str, multiples: ArrayLike | None, extent: float, steps: int) -> FloatArray:
    """The multiples of one direction: those that the caller gave, or evenly spaced ones.

    Raises:
        ValueError: the multiples are not finite and ascending, or are fewer than 2.
    """
    if multiples is None:
        return coordinates(extent, steps)
    axis = np.array(multiples, dtype=np.float64)
    if axis.ndim != 1 or len(axis) < 2 or not np.isfinite(axis).all() or not (np.diff(axis) > 0).all():
        raise ValueError(f"{name}: must be at least 2 finite, ascending multiples, got {multiples!r}")
    return axis
