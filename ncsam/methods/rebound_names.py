"""What functions and methods find outside of themselves and may move, such as a counter: state that no module holds.

That is what they bind anew by `global` and `nonlocal`; containers, tensors and arrays in closures and under global
names; attributes of classes, and of objects that they name.
"""

from __future__ import annotations

import dis
import inspect
from collections import deque
from collections.abc import Iterator, MutableMapping
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

DEEPEST = 4
"""How deep functions and methods are followed that name each other."""

CONTAINERS = (list, dict, set, deque)
HELD = (Tensor, np.ndarray, *CONTAINERS)
"""Values that may change in place."""

NUMBERS = (bool, int, float, complex, str, type(None), np.generic, tuple)
OF_CODE = (FunctionType, classmethod, staticmethod, property, type)
"""Attributes of a class that say what it does."""

BY_ANY_NAME = frozenset({"getattr", "setattr", "vars", "__dict__", "super"})
"""Names in code that may reach attributes that it does not name."""

OTHERS = frozenset(
    {"torch", "numpy", "abc", "builtins", "collections", "enum", "functools", "logging", "typing"}
)
"""Files whose classes hold no state of a caller."""


class Named(NamedTuple):
    """Names of a table that may be state; also some that are not there yet."""

    table: MutableMapping[str, Any]
    names: tuple[str, ...]


Rebound = tuple[Named, ...]


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


class OfClass(MutableMapping[str, Any]):
    """The attributes of a class itself, without those of its bases."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __getitem__(self, name: str) -> Any:
        return vars(self._kind)[name]

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self._kind, name, value)

    def __delitem__(self, name: str) -> None:
        delattr(self._kind, name)

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self._kind))

    def __len__(self) -> int:
        return len(vars(self._kind))


def rebound_by(function: FunctionType) -> Rebound:
    """What a function, or one that is written inside of it, binds anew or may change in place."""
    of_globals, of_cells, read = _names_in(function.__code__)
    file, cells = function.__globals__, Cells(function)
    of_globals += tuple(name for name in read if _may_be_state(file.get(name), file))
    of_cells += tuple(name for name in cells if name not in of_cells and _may_be_state(cells.get(name), file))
    found = [Named(file, of_globals)] if of_globals else []
    if of_cells:
        found.append(Named(cells, of_cells))
    for table, name in _objects_named_by(function):
        found += of_object(table[name], frozenset(read))
    return tuple(found)


def _objects_named_by(function: FunctionType) -> list[tuple[MutableMapping[str, Any], str]]:
    """The tables and names by which a function finds objects of a caller's classes."""
    file, cells = function.__globals__, Cells(function)
    places: list[tuple[MutableMapping[str, Any], str]] = [(cells, name) for name in cells]
    places += [(file, name) for name in _names_in(function.__code__)[2] if name in file]
    return [(table, name) for table, name in places if _is_object(table.get(name))]


def of_object(value: Any, names: frozenset[str]) -> list[Named]:
    """The attributes of an object of a caller's class, and of the class, that code names, or the object's methods.

    Args:
        value: the object.
        names: what the code names.
    """
    if not _is_object(value):
        return []
    known, attributes = names_of_methods(value, names | {"__call__"}), vars(value)
    is_any = not known.isdisjoint(BY_ANY_NAME)
    held = [name for name, each in attributes.items() if isinstance(each, (*HELD, *NUMBERS))]
    written = _attributes_written_by(type(value)) - attributes.keys()
    own = Named(attributes, tuple(name for name in (*held, *written) if is_any or name in known))
    return [own, *rebound_by_methods(type(value))]


def names_of_methods(value: Any, names: frozenset[str]) -> frozenset[str]:
    """The names of code, with those that the methods of an object name that are among them."""
    found = new = names
    for _ in range(DEEPEST):
        methods = (inspect.getattr_static(value, name, None) for name in new)
        new = frozenset().union(*(_all_names_in(_code_of(method)) for method in methods)) - found
        found |= new
    return found


def _code_of(method: Any) -> CodeType | None:
    function = _function_of(method)
    return None if function is None else function.__code__


def _is_object(value: Any) -> bool:
    """Whether a value is an object of a caller's class, and no module, class or function."""
    if isinstance(value, nn.Module | type | FunctionType | ModuleType) or not _is_callers(type(value)):
        return False
    return isinstance(getattr(value, "__dict__", None), dict)


def rebound_by_methods(kind: type) -> Rebound:
    """What methods of a class and its bases bind anew or may change; torch's own classes move nothing."""
    found, objects = _rebound_by_methods(kind)
    if any(table.get(name) is not value for table, name, value in objects):
        # a file has another object under its name
        _rebound_by_methods.cache_clear()
        found, _ = _rebound_by_methods(kind)
    return found


@lru_cache(maxsize=4096)
def _rebound_by_methods(kind: Any) -> tuple[Rebound, tuple[tuple[MutableMapping[str, Any], str, Any], ...]]:
    """What they bind anew or may change, and the objects among it, with the tables and names in which they are."""
    found: list[Named] = []
    objects: list[tuple[MutableMapping[str, Any], str, Any]] = []
    for base in kind.__mro__:
        if not _is_callers(base):
            continue
        for method in _with_those_named(_methods_of(base)):
            found += rebound_by(method)
            objects += [(table, name, table[name]) for table, name in _objects_named_by(method)]
        state = [name for name, value in vars(base).items() if _is_state_of_class(name, value)]
        found.append(Named(OfClass(base), tuple(dict.fromkeys([*state, *_attributes_written_by(base)]))))
    return tuple(found), tuple(objects)


def _methods_of(kind: type) -> list[FunctionType]:
    """The methods of a class itself, and the functions of its properties."""
    return [method for method in map(_function_of, vars(kind).values()) if method is not None]


def _attributes_written_by(kind: type) -> frozenset[str]:
    """The attributes, of whatever object, that methods of a class write."""
    return _written(kind)


@lru_cache(maxsize=4096)
def _written(kind: Any) -> frozenset[str]:
    instructions = [each for method in _methods_of(kind) for each in dis.get_instructions(method)]
    return frozenset(each.argval for each in instructions if each.opname == "STORE_ATTR")


def _is_callers(kind: type) -> bool:
    """Whether a class is neither torch's nor Python's."""
    return str(kind.__module__).split(".")[0] not in OTHERS


def _is_state_of_class(name: str, value: Any) -> bool:
    return not (name.startswith("__") and name.endswith("__")) and not isinstance(value, OF_CODE)


def _function_of(method: Any) -> FunctionType | None:
    """The function of a property or of a method of a class; None for other values."""
    function = method.fget if isinstance(method, property) else getattr(method, "__func__", method)
    return function if isinstance(function, FunctionType) else None


def _with_those_named(functions: list[FunctionType]) -> list[FunctionType]:
    """Functions, with those of the same file or around them that they name."""
    found, new = list(functions), functions
    for _ in range(DEEPEST):
        named = [value for each in new for value in _functions_named_by(each)]
        new = [each for each in dict.fromkeys(named) if each not in found]
        found += new
    return found


def _functions_named_by(function: FunctionType) -> list[FunctionType]:
    file, cells = function.__globals__, Cells(function)
    values = [*map(cells.get, cells), *(file.get(name) for name in _names_in(function.__code__)[2])]
    return [value for value in values if isinstance(value, FunctionType) and value.__globals__ is file]


def _may_be_state(value: Any, file: Any) -> bool:
    """Whether a value may change in place; functions of the same file may hold such values."""
    return isinstance(value, HELD) or (isinstance(value, FunctionType) and value.__globals__ is file)


@lru_cache(maxsize=4096)
def _names_in(code: CodeType) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The globals and the names of functions around that code binds anew, and the globals and attributes it names."""
    stored = [(each.opname, each.argval) for each in dis.get_instructions(code)]
    of_globals = {name for operation, name in stored if operation == "STORE_GLOBAL"}
    of_cells = {name for operation, name in stored if operation == "STORE_DEREF"}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            more_globals, more_cells, _ = _names_in(constant)
            of_globals.update(more_globals)
            of_cells.update(more_cells)
    read = _all_names_in(code) - of_globals
    return tuple(sorted(of_globals)), tuple(sorted(of_cells & set(code.co_freevars))), tuple(sorted(read))


@lru_cache(maxsize=4096)
def _all_names_in(code: CodeType | None) -> frozenset[str]:
    if code is None:
        return frozenset()
    inside = [_all_names_in(each) for each in code.co_consts if isinstance(each, CodeType)]
    return frozenset(code.co_names).union(*inside)
