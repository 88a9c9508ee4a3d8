"""The arguments that a method was made with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from torch import Tensor

from ncsam.plain_numbers import with_plain_numbers

PLAIN = (bool, int, float, str, type(None))
"""Types of values that stand for themselves."""


def with_known_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """The `__init__` of a method, which checks its numbers, and keeps its settings as `self.arguments` by name.

    Settings are plain values, lists of them, and tensors. Models, losses and functions are left out.
    """
    signature = inspect.signature(init)

    @wraps(init)
    def known(self: Any, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        given = signature.bind(self, *arguments, **options)
        given.apply_defaults()
        others = {name for name, kind in signature.parameters.items() if kind.kind is kind.VAR_KEYWORD}
        passed_on = {key: value for name in others for key, value in given.arguments[name].items()}
        named = {name: value for name, value in given.arguments.items() if name not in others}
        # a base knows what was passed on to it; what this class calls by the same name is its own
        of_base = getattr(self, "arguments", {})
        found = {**passed_on, **of_base, **named}
        self.arguments = {name: value for name, value in found.items() if _is_setting(value)}

    return with_plain_numbers(known)


def _is_setting(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(part, PLAIN) for part in value)
    return isinstance(value, (*PLAIN, Tensor))


def described(made: object, arguments: Mapping[str, Any]) -> str:
    """The name of a class with its arguments, without tensors and those that are the defaults of it or of a base."""
    shown = dict(arguments)
    for base in type(made).__mro__:
        for name, parameter in inspect.signature(base).parameters.items():
            # a tensor is too long to show, and equals nothing as a whole
            if name in shown and (isinstance(shown[name], Tensor) or shown[name] == parameter.default):
                del shown[name]
    return f"{type(made).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
