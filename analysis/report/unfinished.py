"""What a study's verdicts and tables lack: runs that failed, are not done yet or are not planned, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from analysis import store
from analysis.printable import say

MOST_NAMED = 3
"""Runs that are named in a line; the report names all."""


def print_unfinished(roots: Sequence[Path], console: Console) -> None:
    """Prints a line for each run that failed, and one for those that are not done yet or do not count."""
    for root in roots:
        for line in unfinished_lines(root):
            say(console, line, style="red" if line.startswith("failed") else "yellow")


def unfinished_lines(root: Path) -> Iterator[str]:
    """The lines about one study; none if all of its runs are done."""
    try:
        state = store.unfinished(root)
    except (FileNotFoundError, ValueError) as error:
        yield f"missing: which runs of {root} are planned is not known: {error}"
        return
    for run, cause in state.failed[:MOST_NAMED]:
        first = cause.splitlines()[0]
        yield f"failed: {run.title}: {first}"
    if len(state.failed) > MOST_NAMED:
        yield f"failed: {len(state.failed) - MOST_NAMED} more, which the report lists"
    if state.failed:
        yield f"failed runs are lost: {root} has no verdict of what compares them; run the study again"
    for runs, words in (
        (
            state.unusable,
            "not counted, as their files are broken or of other settings: run the study on, or measure",
        ),
        (state.missing, "not done yet: run the study on"),
    ):
        if runs:
            named = ", ".join([run.title for run in runs[:MOST_NAMED]] + ["..."] * (len(runs) > MOST_NAMED))
            yield f"missing: {len(runs)} of {len(state.planned)} runs of {root}, {words} ({named})"
    yield from _foreign_lines(root, state)


def print_foreign(root: Path, console: Console) -> None:
    """Prints a line if the folder has files of runs that the study does not have, or no longer."""
    for line in _foreign_lines(root, store.unfinished(root)):
        say(console, line, style="yellow")


def _foreign_lines(root: Path, state: store.Unfinished) -> Iterator[str]:
    if state.foreign:
        words = "1 run file belongs" if len(state.foreign) == 1 else f"{len(state.foreign)} run files belong"
        yield f"not counted: {words} to no run of the study in {root} ({state.foreign[0]})"
