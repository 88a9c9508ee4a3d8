"""State around a model: in attributes of its classes, and in what functions find outside of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

DEEPEST = 4
"""How deep functions and objects are followed that hold each other."""

STRUCTURE = frozenset({"_parameters", "_modules", "_buffers", "training"})
"""Attributes that every module has. They are compared elsewhere, or no forward pass changes them."""

OF_CODE = (FunctionType, classmethod, staticmethod, property, type)
"""Attributes of a class that say what it does."""

ABSENT = object()
"""In the place of a value that is not there yet."""

OTHERS = frozenset({"torch", "numpy", "abc", "builtins", "collections", "enum", "functools", "typing"})
"""Files whose classes and functions are not a caller's."""

BY_ANY_NAME = frozenset({"getattr", "setattr", "vars", "__dict__"})
"""Names in code that may reach attributes that it does not name."""

Table = MutableMapping[str, Any]


@dataclass(eq=False)
class Names(Table):
    """Some of the names of a table, such as those of a file that a function reads. Others are none of its own.

    Attributes:
        table: of all names.
        is_one: whether a name is one of them.
    """

    table: Any
    is_one: Callable[[str], bool]

    def __getitem__(self, name: str) -> Any:
        return self.table[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.table[name] = value

    def __delitem__(self, name: str) -> None:
        del self.table[name]

    def __iter__(self) -> Iterator[str]:
        # other threads may add names meanwhile
        return iter([name for name in list(self.table) if self.is_one(name)])

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(eq=False)
class OfClass(Table):
    """The attributes of a class that are no code of it."""

    kind: type

    def __getitem__(self, name: str) -> Any:
        return vars(self.kind)[name]

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self.kind, name, value)

    def __delitem__(self, name: str) -> None:
        delattr(self.kind, name)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, value in list(vars(self.kind).items()) if _is_state(name, value)])

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(eq=False)
class Cells(Table):
    """What a function finds by the names of the functions around it; a name without a value yet is none."""

    function: FunctionType

    def __post_init__(self) -> None:
        function = self.function
        self._cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))

    def __getitem__(self, name: str) -> Any:
        try:
            return self._cells[name].cell_contents
        except ValueError:
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        self._cells[name].cell_contents = value

    def __delitem__(self, name: str) -> None:
        del self._cells[name].cell_contents

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self._cells if self.get(name, ABSENT) is not ABSENT])

    def __len__(self) -> int:
        return sum(1 for _ in self)


def attributes_of(module: nn.Module) -> Table:
    """The attributes of a module that are its own."""
    return Names(vars(module), lambda name: name not in STRUCTURE)


def tables_around(model: nn.Module, others: Iterable[Any]) -> list[Table]:
    """The tables in which state may lie around a model, and in and around functions and modules beside it.

    They hold attributes of classes, along their bases, without torch's; what methods and functions find in closures, in
    defaults, in `functools.partial`, under global names, and in attributes of objects and files that their code names.

    Args:
        model: whose own attributes are left out.
        others: losses and functions; None is none.
    """
    walk = _Walk()
    walk.seen.update(id(module) for module in model.modules())
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        walk.look_at_class(kind)
    for other in others:
        walk.look_at(other)
    by_file = [Names(table, names.__contains__) for table, names in walk.files.values()]
    return [*walk.found, *by_file]


@dataclass
class _Walk:
    """A walk along what functions, classes and objects hold.

    Attributes:
        found: the tables, without those of files.
        files: the tables of files by their ids, each with the names that code names.
        seen: ids of what was looked at.
    """

    found: list[Table] = field(default_factory=list)
    files: dict[int, tuple[Table, set[str]]] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def look_at(self, value: Any, names: frozenset[str] | None = None, depth: int = 0) -> None:
        """Finds the tables of a value.

        Args:
            value: any.
            names: of the attributes of an object that code names; None: all.
            depth: how many functions and objects lie before it.
        """
        if isinstance(value, ModuleType):
            self._look_at_file(vars(value), names or frozenset())
        elif depth > DEEPEST or id(value) in self.seen:
            return
        elif isinstance(value, type):
            self.look_at_class(value)
        elif isinstance(value, nn.Module):
            for module in value.modules():
                self.seen.add(id(module))
                self.found += [attributes_of(module), module._buffers]
                self.look_at_class(type(module))
        elif isinstance(value, partial):
            self._look_at_values([value.func, *value.args, *value.keywords.values()], names, depth)
        elif isinstance(value, MethodType):
            self.look_at(value.__func__, depth=depth)
            self.look_at(value.__self__, names_in(getattr(value.__func__, "__code__", None)), depth)
        elif isinstance(value, FunctionType):
            self._look_at_function(value, depth)
        elif isinstance(getattr(value, "__dict__", None), dict) and _is_callers(type(value)):
            self._look_at_object(value, names, depth)

    def look_at_class(self, kind: type) -> None:
        """Finds the tables of a class and its bases: their attributes, and what their methods find."""
        for base in kind.__mro__:
            if id(base) in self.seen or not _is_callers(base):
                continue
            self.seen.add(id(base))
            self.found.append(OfClass(base))
            for method in list(vars(base).values()):
                function = (
                    method.fget if isinstance(method, property) else getattr(method, "__func__", method)
                )
                if isinstance(function, FunctionType):
                    self.look_at(function)

    def _look_at_function(self, function: FunctionType, depth: int) -> None:
        if not _is_callers(function):
            return
        self.seen.add(id(function))
        names, file, cells = names_in(function.__code__), function.__globals__, Cells(function)
        self.found += [vars(function), cells] if function.__closure__ else [vars(function)]
        self._look_at_file(file, names)
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        self._look_at_values(defaults, names, depth)
        named = [file[name] for name in names & file.keys()]
        # of functions of other files nothing is known
        near = [each for each in named if not isinstance(each, FunctionType) or each.__globals__ is file]
        for value in (*cells.values(), *near):
            self.look_at(value, names, depth + 1)

    def _look_at_file(self, file: Table, names: frozenset[str]) -> None:
        if not str(file.get("__name__")).startswith("torch"):
            self.files.setdefault(id(file), (file, set()))[1].update(names)

    def _look_at_values(self, values: list[Any], names: frozenset[str] | None, depth: int) -> None:
        # they stay what they are, and only what they hold may change
        self.found.append({f"argument {place}": value for place, value in enumerate(values)})
        for value in values:
            self.look_at(value, names, depth + 1)

    def _look_at_object(self, value: Any, names: frozenset[str] | None, depth: int) -> None:
        self.seen.add(id(value))
        is_any = names is None or not names.isdisjoint(BY_ANY_NAME)
        attributes = Names(vars(value), (lambda _: True) if is_any or names is None else names.__contains__)
        self.found.append(attributes)
        self.look_at_class(type(value))
        for held in list(attributes.values()):
            self.look_at(held, names, depth + 1)


def names_in(code: CodeType | None) -> frozenset[str]:
    """The global names and attributes that code reads or writes, with that of functions written inside of it."""
    if code is None:
        return frozenset()
    inside = [names_in(each) for each in code.co_consts if isinstance(each, CodeType)]
    return frozenset(code.co_names).union(*inside)


def _is_callers(value: Any) -> bool:
    """Whether a class or function is neither torch's nor Python's."""
    file = getattr(value, "__module__", None)
    return isinstance(file, str) and file.split(".")[0] not in OTHERS


def _is_state(name: str, value: Any) -> bool:
    return not (name.startswith("__") and name.endswith("__")) and not isinstance(value, OF_CODE)
