"""The free-form options of models, noise, methods and losses: their names, types and ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from analysis.plan.data import study_options
from analysis.plan.errors import one_of_or_own
from analysis.plan.study import LossSettings, MethodSettings, ModelSettings, NoiseSettings, OpenSettings
from ncsam import build_loss, build_method, build_schedule, model_options, noise_options
from ncsam.label_noise import NOISE_REGISTRY
from ncsam.losses import LOSS_REGISTRY, told_to_loss
from ncsam.methods import METHOD_REGISTRY
from ncsam.models import check_model_options
from ncsam.options import Registry, check_names, quoted

FIT_ANY_TRAINING = ("constant", "cosine")
"""Schedules whose defaults fit any number of epochs."""


def check_model(name: str, options: dict[str, Any], field: str = "model") -> None:
    """Raises ValueError unless each option has the type of its default and a plausible size."""
    with _within(f"{field}.name", named=True):
        known = model_options(name)
        _check_arguments(name, known, ModelSettings)
    with _within(field):
        check_model_options(name, options)
    for key, value in options.items():
        if isinstance(known[key], float) and not 0 <= value < 1:
            raise ValueError(f"{field}.{key}: must be a share from 0 to below 1, got {quoted(value)}")


def check_noise(kind: str, options: dict[str, Any]) -> None:
    """Raises ValueError unless the kind of noise has these options and needs no others."""
    known = study_options(kind)
    with _within("noise.kind", named=True):
        _check_arguments(kind, known, NoiseSettings)
    in_study = {key: value for key, value in options.items() if key in noise_options(kind)}
    with _within("noise"):
        # the keys of the table that are no options may be misspelled too
        check_names(kind, options, known, beside=tuple(NoiseSettings.model_fields))
        NOISE_REGISTRY.check(kind, in_study, partly=True)
    missing = [key for key, required in known.items() if required and key not in options]
    if missing:
        raise ValueError(f"noise.{missing[0]}: kind {kind!r} needs it")
    if not isinstance(options.get("transition", ""), str | list):
        raise ValueError(
            f"noise.transition: must be a list of rows or a name, got {quoted(options['transition'])}"
        )
    rows = options.get("transition", [])
    if isinstance(rows, list) and not all(
        isinstance(row, list) and all(type(value) in (int, float) for value in row) for row in rows
    ):
        raise ValueError(f"noise.transition: must be a list of rows of numbers, got {quoted(rows)}")
    if "labels" in options and "file" not in options:
        raise ValueError("noise.labels: says which labels of noise.file to take, and that is missing")
    for key in ("file", "labels", "posterior"):
        if key in options and not isinstance(options[key], str):
            raise ValueError(f"noise.{key}: must be a path or a name, got {quoted(options[key])}")


def check_method(
    field: str, name: str, settings: dict[str, Any], candidates: Iterable[dict[str, Any]]
) -> None:
    """Raises ValueError unless every candidate builds the method."""
    _check_values(field, METHOD_REGISTRY, name, settings, MethodSettings)
    model, peer = _deep_model(), _deep_model()
    for candidate in candidates:
        with _within(field):
            build_method(
                name,
                model,
                torch.nn.functional.cross_entropy,
                seed=0,
                clean_targets=torch.zeros(1, dtype=torch.int64, device="cpu"),
                peer=peer,
                **candidate,
            )


def _check_values(
    field: str, registry: Registry[Any], name: str, settings: dict[str, Any], table: type[OpenSettings]
) -> None:
    """Raises ValueError unless all values, and all candidates in lists, are of their options' types."""
    with _within(f"{field}.name", named=True):
        one_of_or_own(name, registry.entries, None)
        options = registry.options(name)
        _check_arguments(name, options, table)
    with _within(field):
        check_names(name, settings, options)
    for key, value in settings.items():
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ValueError(f"{field}.{key}: is an empty list; give a value, or several to choose from")
        with _within(field):
            for candidate in values:
                registry.check_value(key, candidate, options[key])
        if len(set(values)) < len(values):
            raise ValueError(f"{field}.{key}: holds a candidate twice")


def _check_arguments(name: str, options: Iterable[str], table: type[OpenSettings]) -> None:
    """Raises ValueError if an option of a part is named like a key of its table, so that it would never be set."""
    taken = [key for key in options if key in table.model_fields]
    if taken:
        raise ValueError(
            f"{name!r} has an argument {taken[0]!r}, a key that every study has here, which it would never be given; "
            "rename the argument"
        )


def _deep_model() -> torch.nn.Module:
    """A model with more layers than an option of a method asks for; the study's own model is checked with its data."""
    return torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(50)), torch.nn.Linear(1, 2))


def check_loss(field: str, loss: LossSettings, candidates: Iterable[dict[str, Any]]) -> None:
    """Raises ValueError unless all candidates build the loss, and a transition is named exactly if it is needed."""
    _check_values(field, LOSS_REGISTRY, loss.name, loss.options, LossSettings)
    with _within(f"{field}.name", named=True):
        needs_transition = "transition" in told_to_loss(loss.name)
    if needs_transition and loss.transition is None:
        raise ValueError(f'{field}.transition: loss {loss.name!r} needs "known" or "estimated"')
    if loss.transition is not None and not needs_transition:
        raise ValueError(f"{field}.transition: loss {loss.name!r} takes none; leave it out")
    for options in candidates:
        with _within(field):
            build_loss(loss.name, samples=1, classes=2, transition=torch.eye(2, device="cpu"), **options)


def check_schedule(name: str, options: dict[str, Any], epochs: int) -> None:
    """Raises ValueError unless the options make a schedule for a training of `epochs` epochs."""
    # with a process's first optimizer torch loads its compiler, which takes seconds
    if name in FIT_ANY_TRAINING and not options:
        return
    with _within("training.schedule"):
        build_schedule(name, torch.optim.SGD([torch.zeros(1, device="cpu")]), epochs=epochs, **options)


@contextmanager
def _within(field: str, *, named: bool = False) -> Iterator[None]:
    """Puts the name of the table before errors about its keys; if `named`, before errors about its `name`."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{field}: {error}" if named else f"{field}.{error}") from error
