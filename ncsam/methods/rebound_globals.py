"""The globals that functions bind anew by `global`, such as a counter of a file: state that no object holds."""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

Rebound = tuple[tuple[dict[str, Any], tuple[str, ...]], ...]
"""Tables of globals, and the names in each that are bound anew."""


def rebound_by(function: FunctionType) -> Rebound:
    """The globals that a function, or one that is written inside of it, binds anew."""
    names = _names_in(function.__code__)
    return ((function.__globals__, names),) if names else ()


@lru_cache(maxsize=4096)
def rebound_by_methods(kind: type) -> Rebound:
    """The globals that methods of a class and its bases bind anew; torch's own classes bind none."""
    return tuple(
        found
        for base in kind.__mro__
        if not base.__module__.startswith("torch.")
        for method in vars(base).values()
        if isinstance(method, FunctionType)
        for found in rebound_by(method)
    )


@lru_cache(maxsize=4096)
def _names_in(code: CodeType) -> tuple[str, ...]:
    names = {each.argval for each in dis.get_instructions(code) if each.opname == "STORE_GLOBAL"}
    inside = [_names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return tuple(sorted(names.union(*inside)))
