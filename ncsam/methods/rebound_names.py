"""What functions bind anew by `global` and `nonlocal`, such as a counter: state that no object holds."""

from __future__ import annotations

import dis
from collections.abc import Iterator, MutableMapping
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

Rebound = tuple[tuple[MutableMapping[str, Any], tuple[str, ...]], ...]
"""Tables of names, and the names in each that are bound anew."""


class Cells(MutableMapping[str, Any]):
    """What a function finds by the names of the functions around it."""

    def __init__(self, function: FunctionType) -> None:
        self._cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))

    def __getitem__(self, name: str) -> Any:
        try:
            return self._cells[name].cell_contents
        except ValueError:
            # not yet filled
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        self._cells[name].cell_contents = value

    def __delitem__(self, name: str) -> None:
        del self._cells[name].cell_contents

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def rebound_by(function: FunctionType) -> Rebound:
    """What a function, or one that is written inside of it, binds anew."""
    of_globals, of_cells = _names_in(function.__code__)
    found: list[tuple[MutableMapping[str, Any], tuple[str, ...]]] = []
    if of_globals:
        found.append((function.__globals__, of_globals))
    if of_cells:
        found.append((Cells(function), of_cells))
    return tuple(found)


def rebound_by_methods(kind: type) -> Rebound:
    """What methods of a class and its bases bind anew; torch's own classes bind nothing."""
    # a function of its own, because mypy does not take a class for an argument of a cached one
    return _rebound_by_methods(kind)


@lru_cache(maxsize=4096)
def _rebound_by_methods(kind: type) -> Rebound:
    return tuple(
        found
        for base in kind.__mro__
        if not base.__module__.startswith("torch.")
        for method in vars(base).values()
        if isinstance(method, FunctionType)
        for found in rebound_by(method)
    )


@lru_cache(maxsize=4096)
def _names_in(code: CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The globals and the names of functions around that code binds anew."""
    stored = [(each.opname, each.argval) for each in dis.get_instructions(code)]
    of_globals = {name for operation, name in stored if operation == "STORE_GLOBAL"}
    of_cells = {name for operation, name in stored if operation == "STORE_DEREF"}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            more_globals, more_cells = _names_in(constant)
            of_globals.update(more_globals)
            of_cells.update(more_cells)
    return tuple(sorted(of_globals)), tuple(sorted(of_cells & set(code.co_freevars)))
