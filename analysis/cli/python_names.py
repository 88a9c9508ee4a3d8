"""The user's Python objects that options of the command name as `module:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
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
    is_file = place.endswith(".py")
    if is_file and not Path(place).is_file():
        raise FileNotFoundError(f"{option}: {place} does not exist")
    # the modules beside a file, as where Python runs it
    folder = str(Path(place).resolve().parent if is_file else Path.cwd())
    if folder not in sys.path and (is_file or "" not in sys.path):
        sys.path.insert(0, folder)
    try:
        module = _of_file(Path(place).resolve()) if is_file else importlib.import_module(place)
    except Exception as error:
        raise ValueError(f"{option}: cannot import {place}: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        hint = nearest(name, dir(module))
        raise ValueError(f"{option}: {place} has no {name!r}{f'; {hint}' if hint else ''}")
    return getattr(module, name)


def _of_file(path: Path) -> ModuleType:
    """The module of a file, executed once. Another module of its name, such as Python's own `queue`, stays."""
    name = path.stem
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) != str(path):
        name = str(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look for the module of a class among the imported modules
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def called(option: str, text: str) -> Any:
    """What the function that `module:name` names returns; errors as for `found`, or the function fails."""
    function: Callable[[], Any] = found(option, text)
    try:
        return function()
    except Exception as error:
        raise ValueError(f"{option}: {text}() fails: {type(error).__name__}: {error}") from error
