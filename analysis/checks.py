"""What makes a study's settings impossible, said before any run: names, types and ranges of free-form options."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

import torch

from analysis.data import study_options
from ncsam import (
    METHODS,
    build_loss,
    build_method,
    hyperparameters,
    loss_options,
    model_options,
)
from ncsam.label_noise import noise_options

MAX_WIDTH = 65_536
MAX_NUMBER = 1e300


MAX_DEPTH = 6
MAX_WORD = 500


class StudyError(ValueError):
    """A study that cannot be run as written; the message is one line that names the field."""


def check_plain(settings: dict[str, Any]) -> None:
    """Raises ValueError unless all values are what a setting can be.

    Those are finite numbers of 64 bits, true or false, short printable words, and lists and tables of these that
    nest a few levels deep. What comes later can then compare, print and store every value.
    """
    left: list[tuple[tuple[str, ...], Any]] = [((), settings)]
    while left:
        place, value = left.pop()
        field = ".".join(place)
        if len(place) > MAX_DEPTH:
            raise ValueError(f"{field}: nests too deeply; no setting has more than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for key in value:
                if not key or not _is_plain(key):
                    raise ValueError(
                        f"{field or 'study'}: has the key {key[:40]!r}; give the name of a setting"
                    )
            left += [((*place, key), part) for key, part in reversed(value.items())]
        elif isinstance(value, list):
            left += [((*place, str(index)), part) for index, part in reversed([*enumerate(value)])]
        elif isinstance(value, str):
            if not _is_plain(value):
                raise ValueError(
                    f"{field}: must be at most {MAX_WORD} printable characters, got {len(value)}: {value[:40]!r}"
                )
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError(f"{field}: must be a number that is finite, got {value}")
        elif isinstance(value, int):
            if value.bit_length() > 63:
                raise ValueError(
                    f"{field}: must be a number of at most 63 bits, got {value.bit_length()} bits"
                )
        else:
            raise ValueError(f"{field}: must not be a date or a time, got {value}")


def _is_plain(text: str) -> bool:
    return len(text) <= MAX_WORD and text.isprintable()


def shortened(value: Any) -> str:
    """The value as an error can quote it."""
    text = repr(value)
    return text if len(text) <= 2 * MAX_WORD else f"{text[:MAX_WORD]} ..."


def one_of(value: str, known: Any) -> str:
    """The value, if it is known.

    Raises:
        ValueError: it is not; says what is, and which of these looks most like it.
    """
    if value not in known:
        hint = nearest(value, known)
        words = [f"unknown {value!r}", f"known: {', '.join(sorted(known))}", *([hint] if hint else [])]
        raise ValueError("; ".join(words))
    return value


def nearest(given: str, known: Iterable[str]) -> str:
    """ "did you mean ...?" of the known word most like the given one; empty if none is."""
    near = difflib.get_close_matches(given, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else ""


def _check_keys(field: str, given: Iterable[str], known: Iterable[str], owner: str) -> None:
    known = list(known)
    for key in given:
        if key not in known:
            hint = nearest(key, known) or f"{owner} takes {', '.join(known) or 'none'}"
            raise ValueError(f"{field}.{key}: {owner} has no such option; {hint}")


def check_model(name: str, options: dict[str, Any]) -> None:
    """Raises ValueError unless each option is of the kind of its default and of a plausible size."""
    defaults = model_options(name)
    _check_keys("model", options, defaults, repr(name))
    for key, value in options.items():
        if isinstance(defaults[key], float):
            if type(value) not in (int, float) or not 0 <= value < 1:
                raise ValueError(f"model.{key}: must be a share from 0 to below 1, got {shortened(value)}")
            continue
        is_list = isinstance(defaults[key], list | tuple)
        numbers = value if is_list and isinstance(value, list) else [value]
        if not numbers or not all(type(v) is int and 0 < v <= MAX_WIDTH for v in numbers):
            words = "a list of whole numbers" if is_list else "a whole number"
            raise ValueError(f"model.{key}: must be {words} from 1 to {MAX_WIDTH}, got {shortened(value)}")


def check_noise(kind: str, options: dict[str, Any]) -> None:
    """Raises ValueError unless the kind of noise has these options, and no other must be given."""
    known = study_options(kind)
    _check_keys("noise", options, known, repr(kind))
    missing = [key for key, required in known.items() if required and key not in options]
    if missing:
        raise ValueError(f"noise.{missing[0]}: kind {kind!r} needs it")
    for key, option in noise_options(kind).items():
        numeric = type(option.default)
        if key in options and numeric in (int, float) and not _fits(options[key], numeric):
            raise ValueError(f"noise.{key}: must be {_words(numeric)}, got {shortened(options[key])}")
    if not isinstance(options.get("transition", ""), str | list):
        raise ValueError(
            f"noise.transition: must be a list of rows or a name, got {shortened(options['transition'])}"
        )
    rows = options.get("transition", [])
    if isinstance(rows, list) and not all(
        isinstance(row, list) and all(type(value) in (int, float) for value in row) for row in rows
    ):
        raise ValueError(f"noise.transition: must be a list of rows of numbers, got {shortened(rows)}")
    if "labels" in options and "file" not in options:
        raise ValueError("noise.labels: says which labels of noise.file to take, and that is missing")
    for key in ("file", "labels", "posterior"):
        if key in options and not isinstance(options[key], str):
            raise ValueError(f"noise.{key}: must be a path or a name, got {shortened(options[key])}")


def check_method(
    field: str, name: str, settings: dict[str, Any], candidates: Iterable[dict[str, Any]]
) -> None:
    """Raises ValueError unless every candidate builds the method."""
    try:
        known = hyperparameters(name)
    except ValueError as error:
        raise ValueError(f"{field}.name: {error}") from error
    _check_keys(field, settings, known, repr(name))
    hints = get_type_hints(METHODS[name].__init__)
    for key, value in settings.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(_fits(v, hints[key]) for v in values):
            raise ValueError(
                f"{field}.{key}: must be {_words(hints[key])} or a list of such, got {shortened(value)}"
            )
        if len(set(values)) < len(values):
            raise ValueError(f"{field}.{key}: holds a candidate twice")
    model, peer = torch.nn.Linear(1, 2), torch.nn.Linear(1, 2)
    for candidate in candidates:
        try:
            build_method(
                name,
                model,
                torch.nn.functional.cross_entropy,
                seed=0,
                clean_targets=torch.zeros(1, dtype=torch.int64),
                peer=peer,
                **candidate,
            )
        except ValueError as error:
            raise ValueError(f"{field}.{error}") from error


KINDS = {
    float: ((int, float), "a number"),
    int: ((int,), "a whole number"),
    str: ((str,), "a word"),
    bool: ((bool,), "true or false"),
}


def _fits(value: Any, hint: Any) -> bool:
    types, _ = KINDS[_base(hint)]
    return type(value) in types and (type(value) not in (int, float) or abs(value) < MAX_NUMBER)


def _words(hint: Any) -> str:
    return KINDS[_base(hint)][1]


def _base(hint: Any) -> Any:
    """The type itself of `float | None` and the like."""
    return next((part for part in get_args(hint) if part is not type(None)), hint)


def check_loss(field: str, name: str, options: dict[str, Any], transition: str | None) -> None:
    """Raises ValueError unless the options build the loss, and a transition matrix is named just where it is needed."""
    defaults = loss_options(name)
    _check_keys(field, options, defaults, repr(name))
    for key, value in options.items():
        if not _fits(value, type(defaults[key])):
            raise ValueError(f"{field}.{key}: must be {_words(type(defaults[key]))}, got {shortened(value)}")
    if (transition is not None) != (name == "forward"):
        raise ValueError(f'{field}.transition: loss \'forward\', and no other, needs "known" or "estimated"')
    try:
        build_loss(name, samples=1, classes=2, transition=torch.eye(2), **options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{field}.{error}") from error
