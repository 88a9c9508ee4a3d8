"""The free-form options of models, noise, methods and losses: their names, types and ranges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

import torch

from analysis.plan.data import study_options
from analysis.plan.errors import nearest, shortened
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
