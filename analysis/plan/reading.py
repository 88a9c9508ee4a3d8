"""Reads a study file. The error about a mistake is one line that names the file, the field and the remedy."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from analysis.plan.consistency import check_consistency
from analysis.plan.errors import OWN_PARTS, StudyError
from analysis.plan.own_parts import are_loaded
from analysis.plan.plain_values import check_plain
from analysis.plan.study import Study
from ncsam.options import nearest_of, quoted

MAX_BYTES = 1 << 20
"""Most bytes of a study file, which is a page or two of text."""


def read_toml(path: Path) -> dict[str, Any]:
    """The settings in a study file, unchecked. The study.toml of a results folder has the key "resolved" beside them.

    Raises:
        FileNotFoundError: the file does not exist.
        StudyError: the path is no file, or the file is not TOML. The message is one line that names the file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"study: {path} does not exist") from error
    except OSError as error:
        raise StudyError(f"study: cannot read {path}: {error.strerror}; name a TOML file") from error
    if len(content) > MAX_BYTES:
        raise StudyError(f"study: {path} has more than {MAX_BYTES} bytes; name a TOML file of a study")
    try:
        settings = tomllib.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise StudyError(f"{path}: not a TOML file of a study: nests too deeply") from error
    # ValueError covers TOMLDecodeError, bytes that are not UTF-8, and numbers of more digits than Python converts
    except ValueError as error:
        raise StudyError(f"{path}: not a TOML file: {error}") from error
    return settings


def read_study(path: Path) -> Study:
    """Reads and checks a study file, or the study.toml of a results folder.

    Raises:
        FileNotFoundError: no such file.
        StudyError: not a file, not TOML, or not a study; the message is one line that names file and field.
    """
    settings = read_toml(path)
    has_results = settings.pop("resolved", None) is not None
    try:
        check_plain(settings)
        own_parts = settings.get("own_parts", {})
        # names of the user's parts are known only if these are loaded, and showing results does not need them
        knows_all = not isinstance(own_parts, dict) or are_loaded(own_parts)
        study = Study.model_validate(settings, context={OWN_PARTS: not knows_all})
        check_consistency(study, knows_all=knows_all, has_results=has_results)
    except ValidationError as error:
        raise StudyError(f"{path}: {with_place(one_line(error, Study))}") from error
    except ValueError as error:
        raise StudyError(f"{path}: {with_place(str(error))}") from error
    return study


def with_place(message: str) -> str:
    """The message; of a key in a list of tables, which it counts from 0, it says the place in the file."""
    # entries of a list of numbers or words have no key, and no table
    entry = re.match(r"(\w+)\.(\d+)\.", message)
    return f"{message} ([[{entry[1]}]] number {int(entry[2]) + 1} in the file)" if entry else message


def one_line(error: ValidationError, whole: type[BaseModel]) -> str:
    """The first mistake in a file whose whole content is a `whole`, in one line that names the field.

    A key that is unknown comes before all others: often another one is missing because this one is misspelled.
    """
    first, *others = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        table, known = first["loc"][:-1], _fields_at(first["loc"][:-1], whole)
        near = nearest_of(str(first["loc"][-1]), known)
        message = "unknown key; " + (f"did you mean {near!r}?" if near else f"known: {', '.join(known)}")
        others = [each for each in others if (each["type"], each["loc"]) != ("missing", (*table, near))]
    elif first["type"] == "missing":
        message = f"is missing{_misspelled(first)}"
    elif first["type"] == "model_type":
        message = f"must be a table, got {quoted(first['input'])}"
    elif first["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, got {quoted(first['input'])}"
    more = f" (and {len(others)} more)" if others else ""
    return (f"{field}: {message}" if field else message) + more


def _misspelled(missing: ErrorDetails) -> str:
    """A hint that a given key may be a misspelling of the missing one.

    Without it, the key counts as an option of the chosen name.
    """
    given = [str(key) for key in missing["input"]] if isinstance(missing["input"], dict) else []
    near = nearest_of(str(missing["loc"][-1]), given)
    return "" if near is None else f"; is {near!r} a misspelling of it?"


def _fields_at(location: tuple[int | str, ...], whole: type[BaseModel]) -> list[str]:
    model: Any = whole
    for part in location:
        if isinstance(part, str):
            model = _table_in(model.model_fields[part].annotation)
    return list(model.model_fields)


def _table_in(annotation: Any) -> Any:
    """The table of a field's type, which may be a list of tables."""
    return annotation if isinstance(annotation, type) else _table_in(get_args(annotation)[0])
