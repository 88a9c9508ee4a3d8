"""Result classes by name. A class registers itself with `@result`; files need no list of classes."""

from __future__ import annotations

import dataclasses
from typing import TypeVar, dataclass_transform

from landscape.results.fields import described
from landscape.results.shown import Result

T = TypeVar("T")

RESULT_CLASSES: dict[str, type] = {}
"""Filled by `@result`."""


@dataclass_transform(frozen_default=True, field_specifiers=(described,))
def result(cls: type[T]) -> type[T]:
    """Makes a class of `described` fields a frozen dataclass that `save` writes and `load` reads under its name.

    With the base `landscape.results.shown.Result` it is shown in a line, and in notebooks as a table.

    Raises:
        ValueError: another class has the same name.
    """
    # a result's own line is shorter than that of a dataclass
    made = dataclasses.dataclass(frozen=True, repr=not issubclass(cls, Result))(cls)
    if cls.__name__ in RESULT_CLASSES:
        other = RESULT_CLASSES[cls.__name__].__module__
        raise ValueError(
            f"result: the name {cls.__name__} belongs to a class of {other}; choose another name"
        )
    RESULT_CLASSES[cls.__name__] = made
    return made
