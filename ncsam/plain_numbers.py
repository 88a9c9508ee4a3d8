"""The numbers among a function's arguments: made Python's own numbers, or refused by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from numbers import Real
from typing import ParamSpec, TypeVar

import numpy as np
from torch import Tensor

P = ParamSpec("P")
Result = TypeVar("Result")


def whole_number(name: str, value: object) -> int:
    """The int that a number of Python, NumPy or torch stands for.

    Raises:
        TypeError: it is no number.
        ValueError: it is no whole number.
    """
    number = _number(name, value, "a whole number")
    # an int may be too large for a float
    if isinstance(number, float) and not number.is_integer():
        raise ValueError(f"{name}: must be a whole number, got {value}")
    return int(number)


def real_number(name: str, value: object) -> float:
    """The int or float that a number of Python, NumPy or torch stands for; it may be infinite.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN.
    """
    number = _number(name, value, "a number")
    if isinstance(number, float) and math.isnan(number):
        raise ValueError(f"{name}: must be a number, got {value}")
    return number


def _number(name: str, value: object, what: str) -> float:
    if (isinstance(value, Tensor) and value.ndim == 0 and not value.is_complex()) or isinstance(
        value, np.generic
    ):
        value = value.item()
    # True is an int of Python, and a mistake here
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: must be {what}, got {value!r}")
    return value if isinstance(value, int) else float(value)


KINDS = {"int": whole_number, "float": real_number}
"""Annotation of an argument -> what its value is made into."""


def with_plain_numbers(function: Callable[P, Result]) -> Callable[P, Result]:
    """The function, whose arguments that are annotated as numbers are checked first.

    These are `int`, `float`, and both with `| None`.
    """
    signature = inspect.signature(function)
    kinds = {
        name: (KINDS[annotation], parameter.annotation != annotation)
        for name, parameter in signature.parameters.items()
        if (annotation := str(parameter.annotation).removesuffix(" | None")) in KINDS
    }

    @wraps(function)
    def checked(*arguments: P.args, **options: P.kwargs) -> Result:
        try:
            bound = signature.bind(*arguments, **options)
        except TypeError:
            # Python's own error names the function
            return function(*arguments, **options)
        for name, (plain, may_be_none) in kinds.items():
            if name in bound.arguments and not (may_be_none and bound.arguments[name] is None):
                bound.arguments[name] = plain(name, bound.arguments[name])
        return function(*bound.args, **bound.kwargs)

    return checked
