"""The content of a run file for the terminal: one screen of what there is, and each part of it on request."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from analysis import store
from analysis.plan.study import Settings
from analysis.printable import printable, say
from ncsam.options import nearest

SETTINGS, RESULTS = "settings", "results"
"""Parts of a run file that are no group of it."""
FIRST = (
    *(
        "epochs",
        "test_accuracy",
        "best_test_accuracy",
        "train_accuracy",
        "memorized",
        "train_loss",
        "seconds",
    ),
    *("top_eigenvalue_observed", "trace_observed", "sharpness_observed", "jacobian_trace_observed"),
    "uncertainty_observed",
)
"""Results that the screen shows; all others are counted."""
NO_COORDINATES = b"This is a netCDF dimension but not a netCDF variable."


def print_run(path: Path, parts: Sequence[str], console: Console) -> None:
    """Prints what a run file holds in one screen, or the parts that are named.

    Args:
        path: the file.
        parts: "settings"; "results"; groups of the file, such as "sharpness" or "sharpness/observed"; or columns of
            the results.
        console: where it is printed.

    Raises:
        FileNotFoundError: the file does not exist.
        StoreError: the file is not a run's.
        ValueError: a part is unknown.
    """
    with store.opened(path) as file:
        stored, row, groups = store.config_of(file), store.record_of(file).row, _groups_of(file)
    row = {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
    whole_parts = [SETTINGS, RESULTS, *dict.fromkeys(name.split("/")[0] for name in groups)]
    known = [*whole_parts, *groups, *row]
    for part in parts:
        if part.strip("/") not in known:
            hint = nearest(part, known)
            some = ", ".join(whole_parts)
            raise ValueError(f"part: {path} has no {part!r}; take of {some}{f'; {hint}' if hint else ''}")
    say(console, f"{path}: run {stored.config.fingerprint[:12]}, trained on {stored.device}")
    for part in parts:
        _print_part(part.strip("/"), stored, row, groups, console)
    if not parts:
        _print_screen(stored, row, groups, console)
        say(
            console,
            f"more: ncsam info {path} PART, with a PART such as {SETTINGS}, {RESULTS}, {next(iter(groups))}",
        )


def _print_part(
    part: str,
    stored: store.StoredRun,
    row: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
    console: Console,
) -> None:
    if part == SETTINGS:
        for line in _all_settings(stored):
            say(console, f"  {line}")
    elif part in (RESULTS, *row):
        for name in row if part == RESULTS else (part,):
            say(console, f"  {name}: {_number(row[name])}")
    else:
        for group, lines in groups.items():
            if group == part or group.startswith(f"{part}/"):
                console.print(Text(printable(f"/{group}")), style="bold")
                for line in lines:
                    _print_folded(line, console)


def _print_screen(
    stored: store.StoredRun, row: Mapping[str, Any], groups: Collection[str], console: Console
) -> None:
    config = stored.config
    method = {"name": config.method.name, **stored.hyperparameters, "loss": config.method.loss.name}
    console.print(Text(SETTINGS), style="bold")
    lines = {
        "data": f"{config.dataset}, {row['train_samples']} training samples, seed {config.seed}",
        "noise": f"{config.noise.title}, rate {config.noise.rate:g}{_listed(config.noise.options, ', ')}",
        "method": f"{config.method.label}: {_listed(method)}",
        "model": _listed(config.model.whole()),
    }
    for name in ("training", "selection", "measure"):
        settings = getattr(config, name)
        if settings is not None:
            lines[name] = _told(settings)
    for name, told in lines.items():
        _print_folded(f"{name}: {told}", console)
    console.print(Text(RESULTS), style="bold")
    shown = [name for name in FIRST if name in row]
    told = ", ".join(f"{name} {_number(row[name])}" for name in shown)
    _print_folded(f"{told}; {len(row) - len(shown)} more", console)
    console.print(Text("groups"), style="bold")
    for first in dict.fromkeys(group.split("/")[0] for group in groups):
        rest = [group.removeprefix(f"{first}/") for group in groups if group.startswith(f"{first}/")]
        _print_folded(f"{first}: {', '.join(rest)}" if rest else first, console)


def _told(settings: Settings) -> str:
    """The settings that were chosen; then those that have their default, without those that are off."""
    defaults = _defaults(settings)
    whole = settings.whole()
    chosen = {name: value for name, value in whole.items() if name not in defaults or value != defaults[name]}
    others = {name: value for name, value in whole.items() if name not in chosen and value}
    return "; ".join(filter(None, (_listed(chosen), _listed(others, "defaults: "))))


def _defaults(settings: Settings) -> dict[str, Any]:
    """The defaults of those settings that have one, as plain values."""
    fields = type(settings).model_fields
    required = {name for name, field in fields.items() if field.is_required()}
    given = {name: getattr(settings, name) for name in required}
    return {name: value for name, value in type(settings)(**given).whole().items() if name not in required}


def _listed(settings: Mapping[str, Any], before: str = "") -> str:
    """Such as "epochs 30, schedule cosine"; the name of a choice comes without "name"."""
    words = ", ".join(_word(name, value) for name, value in settings.items())
    return f"{before}{words}" if words else ""


def _word(name: str, value: Any) -> str:
    if isinstance(value, dict):
        # a choice such as the schedule, with its options
        options = _listed({key: each for key, each in value.items() if key != "name"})
        return f"{name} {value.get('name', '')}{f' ({options})' if options else ''}"
    plain = value if isinstance(value, str) else json.dumps(value)
    return plain if name == "name" else f"{name} {plain}"


def _all_settings(stored: store.StoredRun) -> Iterator[str]:
    """A line for each setting, those with their default marked."""
    config = stored.config
    defaults = {
        f"{name}.{key}"
        for name in ("training", "selection", "measure")
        if (settings := getattr(config, name)) is not None
        for key, value in _defaults(settings).items()
        if settings.whole()[key] == value
    }
    settings = {"hyperparameters": stored.hyperparameters, **config.whole(), "versions": stored.versions}
    for name, value in _dotted(settings):
        is_default = ".".join(name.split(".")[:2]) in defaults
        yield f"{name}: {json.dumps(value)}{' (default)' if is_default else ''}"


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings within settings by names such as `training.epochs`."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _print_folded(line: str, console: Console) -> None:
    console.print(Padding(Text(printable(line)), (0, 0, 0, 2)))


def _groups_of(file: h5py.File) -> dict[str, list[str]]:
    """Group -> a line for each of its data sets: name, shape of an array, unit and description."""
    groups: dict[str, list[str]] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        name_of_scale = item.attrs.get("NAME")
        if isinstance(name_of_scale, bytes) and name_of_scale.startswith(NO_COORDINATES):
            return
        group, _, last = name.rpartition("/")
        unit, meaning = _about(item)
        of_array = ", ".join(filter(None, ("x".join(map(str, item.shape)), unit)))
        about = f" ({of_array})" if of_array else ""
        groups.setdefault(group, []).append(f"{last}{about}: {meaning}".removesuffix(": "))

    file.visititems(visit)
    return groups


def _about(item: h5py.Dataset) -> tuple[str, str]:
    return str(item.attrs.get("units", "")), str(item.attrs.get("description", ""))
