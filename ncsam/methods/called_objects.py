"""What a function calls or holds: a head that a closure runs, the loss that a lambda wraps, the labels of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, nn

DEEPEST = 4
"""How deep functions are followed that hold each other, as decorated ones do."""
CONTAINERS = (list, tuple, dict)
PARTS = (nn.Module, Tensor, np.ndarray, *CONTAINERS)
"""What is looked for among globals and attributes: modules, tensors and arrays, and containers that may hold them."""
BY_ANY_NAME = frozenset({"getattr", "vars", "__dict__", "super"})
"""Names in code that may reach attributes that it does not name."""


def objects_called(losses: list[Any], run: Any) -> list[Any]:
    """What passes call or may write to beside the model.

    These are modules, functions, tensors that functions hold, such as the labels of a closure, and the attributes of a
    loss that is an object of another type.

    Args:
        losses: the loss, or none if it keeps its own state apart from passes.
        run: the function that runs the model; None for the model's own call.
    """
    found: list[Any] = [each for function in (*losses, run) for each in _found_in(function)]
    for loss_fn in losses:
        if not isinstance(loss_fn, nn.Module | FunctionType | MethodType | partial) and hasattr(
            loss_fn, "__dict__"
        ):
            found.append(vars(loss_fn))
    return found


def called_by(function: Any) -> list[nn.Module]:
    """The modules that a function, or an object that can be called, holds or names.

    Of functions that are only named, such as helpers of the same file, nothing is known.
    """
    return [each for each in _found_in(function) if isinstance(each, nn.Module)]


def _found_in(value: Any, depth: int = 0) -> list[nn.Module | Tensor | np.ndarray | FunctionType]:
    """The modules, tensors, arrays and functions that a function or a batch holds or names."""
    if isinstance(value, nn.Module | Tensor | np.ndarray):
        return [value]
    if depth > DEEPEST:
        return []
    # containers in containers soon hold more than can be looked at in each pass
    deeper = depth + 2 if isinstance(value, CONTAINERS) else depth + 1
    found = [each for held in _held_by(value) for each in _found_in(held, deeper)]
    return [value, *found] if isinstance(value, FunctionType) else found


def _held_by(value: Any) -> Iterator[Any]:
    if isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield value.__func__
        yield value.__self__
        yield from _parts_of(value.__self__, _names_in(getattr(value.__func__, "__code__", None)))
    elif isinstance(value, FunctionType):
        names = _names_in(value.__code__)
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        for cell in value.__closure__ or ():
            try:
                held = cell.cell_contents
            except ValueError:  # not yet filled
                continue
            yield held
            yield from _parts_of(held, names)
        named = (value.__globals__.get(name) for name in names)
        yield from (found for found in named if isinstance(found, PARTS))
    elif isinstance(value, CONTAINERS) and len(value) < 100:
        yield from value.values() if isinstance(value, dict) else value


def _parts_of(value: Any, names: set[str]) -> list[Any]:
    """The modules and tensors among the attributes of an object, such as the caller's trainer, that code names.

    Args:
        value: the object.
        names: what the code names. Methods of the object among them are looked into.
    """
    attributes = getattr(value, "__dict__", None)
    if isinstance(value, nn.Module | type | FunctionType) or not isinstance(attributes, dict):
        return []
    found, new = set(names), names
    for _ in range(DEEPEST):
        methods = (inspect.getattr_static(value, name, None) for name in new)
        new = set().union(*(_names_in(_code_of(method)) for method in methods)) - found
        found |= new
    is_any = bool(found & BY_ANY_NAME)
    return [
        part for name, part in attributes.items() if isinstance(part, PARTS) and (is_any or name in found)
    ]


def _code_of(method: Any) -> CodeType | None:
    """The code of a function, a property, or a method of a class; None for other values."""
    function = method.fget if isinstance(method, property) else getattr(method, "__func__", method)
    return function.__code__ if isinstance(function, FunctionType) else None


def _names_in(code: CodeType | None) -> set[str]:
    if code is None:
        return set()
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names
