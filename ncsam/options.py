"""Choices by name and their options: methods, models, losses, label noise, schedules.

The options of a choice are the keyword-only arguments of the function or class that makes it. So their names, types and
defaults stand in one place, and all errors about them are raised here.
"""

from __future__ import annotations

import difflib
import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

Entry = TypeVar("Entry")

MAX_NUMBER = 1e300
"""Larger numbers are refused. Integers of Python can be larger than any float."""
FEWEST_BEGUN = 3
"""Letters from which on a word is taken for the beginning of another."""
MAX_QUOTED = 500
"""Characters of a wrong value that an error quotes."""


@dataclass(frozen=True)
class Option:
    """One setting of a choice.

    Attributes:
        required: whether a value must be given.
        default: the value where none is given.
        kind: the type of the value, without `None`.
    """

    required: bool
    default: Any
    kind: Any


@dataclass(frozen=True)
class Registry(Generic[Entry]):
    """All choices of one kind, such as all losses, found by name.

    Attributes:
        field: what error messages call this kind of choice, such as `"loss"`.
        entries: name -> entry.
        maker: entry -> the function or class whose keyword-only arguments are the options.
        not_options: keyword arguments that a user cannot set, because the calling code passes them.
        whole_numbers: (smallest, largest) value of options that are whole numbers; None: no limit.
    """

    field: str
    entries: MutableMapping[str, Entry]
    maker: Callable[[Entry], Callable[..., Any]] = lambda entry: entry  # type: ignore[assignment,return-value]
    not_options: tuple[str, ...] = ()
    whole_numbers: tuple[int, int] | None = None

    def entry(self, name: str) -> Entry:
        """The entry of a name.

        Raises:
            ValueError: the name is unknown.
        """
        if name not in self.entries:
            hint = nearest(name, self.entries)
            known = f"known: {', '.join(self.entries)}"
            raise ValueError(f"{self.field}: unknown name {name!r}; {known}{f'; {hint}' if hint else ''}")
        return self.entries[name]

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator that adds an entry under a name.

        Raises:
            ValueError: the name is taken.
        """
        if name in self.entries:
            raise ValueError(f"{self.field}: the name {name!r} is taken; choose another")

        def add(entry: Entry) -> Entry:
            self.entries[name] = entry
            return entry

        return add

    def options(self, name: str) -> dict[str, Option]:
        """The options of a choice by name.

        Raises:
            ValueError: the choice is unknown.
        """
        found = options_of(self.maker(self.entry(name)))
        return {key: option for key, option in found.items() if key not in self.not_options}

    def check(self, name: str, options: Mapping[str, Any], *, partly: bool = False) -> None:
        """Checks names and types of options. The function that makes the choice checks the range of their values.

        Args:
            name: name of the choice.
            options: option -> value.
            partly: whether required options may be missing.

        Raises:
            ValueError: the choice is unknown or does not have an option, a value has another type, or a required option
                is missing. The message begins with the name of the option.
        """
        known = self.options(name)
        check_names(name, options, known)
        for key, value in options.items():
            self.check_value(key, value, known[key])
        if not partly:
            for key, option in known.items():
                if option.required and key not in options:
                    raise ValueError(f"{key}: {self.field} {name!r} needs it")

    def check_value(self, key: str, value: Any, option: Option) -> None:
        """Raises ValueError unless the value is of the option's type."""
        optional = not option.required and option.default is None
        if not (_fits(value, option.kind, self.whole_numbers) or (value is None and optional)):
            words = described(option.kind, self.whole_numbers)
            raise ValueError(f"{key}: must be {words}, got {quoted(value)}")


@cache
def options_of(maker: Callable[..., Any]) -> dict[str, Option]:
    """The keyword-only arguments of a function or class. Its base tells those that it passes on by `Unpack`."""
    function = maker.__init__ if isinstance(maker, type) else maker  # type: ignore[misc]
    hints = get_type_hints(function)
    inherited: dict[str, Option] = {}
    defined_here: dict[str, Option] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            required = parameter.default is inspect.Parameter.empty
            default = None if required else parameter.default
            defined_here[parameter.name] = Option(required, default, _without_none(hints[parameter.name]))
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD and isinstance(maker, type):
            (passed_on,) = get_args(hints[parameter.name])
            of_base = options_of(maker.__mro__[1])
            inherited = {name: of_base[name] for name in get_type_hints(passed_on)}
    return inherited | defined_here


def check_not_negative(name: str, value: float) -> None:
    """Raises ValueError unless the value is at least 0 and finite."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: must be at least 0 and finite, got {value}")


def check_positive(name: str, value: float, remedy: str = "") -> None:
    """Raises ValueError, with the remedy, unless the value is above 0 and finite."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: must be above 0 and finite, got {value}{remedy and f'; {remedy}'}")


def check_is_tensor(name: str, value: object, shape: str) -> None:
    """Raises TypeError for what is no tensor, such as a NumPy array or a list, with the shape that it should have."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: must be a tensor {shape}, got {type(value).__name__}; torch.as_tensor makes one"
        )


def check_at_least(name: str, value: float, least: int) -> None:
    """Raises ValueError for a value below `least`."""
    if value < least:
        raise ValueError(f"{name}: must be at least {least}, got {value}")


def check_share(name: str, value: float) -> None:
    """Raises ValueError unless the value lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: must be a share in [0, 1], got {value}")


def check_below_1(name: str, value: float) -> None:
    """Raises ValueError unless the value is at least 0 and below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name}: must be at least 0 and below 1, got {value}")


def check_names(
    owner: str, names: Iterable[str], known: Iterable[str], *, beside: Iterable[str] = ()
) -> None:
    """Raises ValueError for the first of `names` that is not known, and names the known name that is most like it.

    `beside` are names of the same table that are no options, and may have been meant.
    """
    known = list(known)
    for key in names:
        if key not in known:
            hint = nearest(key, [*known, *beside]) or f"it takes {', '.join(known) or 'none'}"
            raise ValueError(f"{key}: {owner!r} has no such option; {hint}")


def nearest(word: str, known: Iterable[str]) -> str:
    """The question "did you mean ...?" with the known word that is most like this one; empty if none is like it."""
    near = nearest_of(word, known)
    return "" if near is None else f"did you mean {near!r}?"


def nearest_of(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, whatever the case of its letters; None if none is like it.

    The same word in another case comes first, then the shortest word that begins with this one.
    """
    in_small_letters = {each.lower(): each for each in known}
    small = word.lower()
    begun = (
        [each for each in in_small_letters if each.startswith(small)] if len(small) >= FEWEST_BEGUN else []
    )
    if small in in_small_letters or begun:
        return in_small_letters[small if small in in_small_letters else min(begun, key=len)]
    near = difflib.get_close_matches(small, list(in_small_letters), 1)
    return in_small_letters[near[0]] if near else None


def quoted(value: Any) -> str:
    """The value as an error shows it; a long one is shortened."""
    text = repr(value)
    return text if len(text) <= 2 * MAX_QUOTED else f"{text[:MAX_QUOTED]} ..."


def described(kind: Any, whole_numbers: tuple[int, int] | None = None) -> str:
    """A type in words, such as "a whole number"."""
    bounds = "" if whole_numbers is None else f" from {whole_numbers[0]} to {whole_numbers[1]}"
    if kind is int:
        return f"a whole number{bounds}"
    if get_origin(kind) in (Sequence, list):
        (member,) = get_args(kind)
        return f"a list of {'whole numbers' if member is int else 'numbers'}{bounds}"
    return {float: "a number", str: "a word", bool: "true or false"}.get(kind, "of another type")


def _fits(value: Any, kind: Any, whole_numbers: tuple[int, int] | None) -> bool:
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if kind is int:
        is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        least, most = whole_numbers or (-MAX_NUMBER, MAX_NUMBER)
        return is_whole and least <= value <= most
    if kind is float:
        # the maker of the choice, which knows the range, refuses infinite numbers
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return is_number and (isinstance(value, float) or abs(value) < MAX_NUMBER)
    if kind is str:
        return isinstance(value, str)
    if get_origin(kind) in (Sequence, list):
        (member,) = get_args(kind)
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and all(_fits(part, member, whole_numbers) for part in value)
    return True


def _without_none(hint: Any) -> Any:
    """The type without None: float for `float | None`. A union of several types is not changed."""
    parts = [part for part in get_args(hint) if part is not type(None)]
    return parts[0] if type(None) in get_args(hint) and len(parts) == 1 else hint
