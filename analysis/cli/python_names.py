"""The user's Python objects that options of the command name as `module:name`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ncsam.options import nearest


def found(option: str, text: str) -> Any:
    """The object that `module:name` or `file.py:name` names. Modules are looked for in the current folder too.

    Raises:
        FileNotFoundError, ValueError: there is no such object; the message names the option.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ValueError(f"{option}: must look like module:function, got {text!r}")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise FileNotFoundError(f"{option}: {place} does not exist")
        sys.path.insert(0, str(Path(place).resolve().parent))
        place = Path(place).stem
    elif "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(place)
    except Exception as error:
        raise ValueError(f"{option}: cannot import {place}: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        hint = nearest(name, dir(module))
        raise ValueError(f"{option}: {place} has no {name!r}{f'; {hint}' if hint else ''}")
    return getattr(module, name)


def called(option: str, text: str) -> Any:
    """What the function that `module:name` names returns; errors as for `found`, or the function fails."""
    function: Callable[[], Any] = found(option, text)
    try:
        return function()
    except Exception as error:
        raise ValueError(f"{option}: {text}() fails: {type(error).__name__}: {error}") from error
