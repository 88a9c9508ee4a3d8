"""Progress of long measurements."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]
"""A function of (steps done, steps in all). A step is a point, a product, a gradient or a draw."""


def on_terminal(title: str, unit: str = "points") -> Progress:
    """Shows the progress in one line on standard error. The line is written anew at most once a second."""
    began = time.monotonic()
    written = began - 1

    def show(done: int, total: int) -> None:
        nonlocal written
        now = time.monotonic()
        if done < total and now - written < 1:
            return
        written = now
        left = (now - began) * (total - done) / max(done, 1)
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{title}: {done} of {total} {unit}, {left:.0f} s left \x1b[K{end}")
        sys.stderr.flush()

    return show


def as_progress(progress: Progress | bool | None, title: str, unit: str = "points") -> Progress:
    """The function to call: the caller's, one that writes a line on the terminal for True, or one that does nothing."""
    if callable(progress):
        return progress
    return on_terminal(title, unit) if progress else _silent


@contextmanager
def counted(
    most: int, progress: Progress | bool | None, title: str, unit: str
) -> Iterator[Callable[[int], None]]:
    """Yields a function that counts the spent part of a budget. The work may end before the budget does.

    At the end the spent part counts as the whole, so that the last call says that all is done.

    Args:
        most: the budget.
        progress: as for `as_progress`.
        title: title of the line.
        unit: unit of the budget, such as products.
    """
    report = as_progress(progress, title, unit)
    spent = 0

    def spend(count: int) -> None:
        nonlocal spent
        spent += count
        # the end is not known if the budget turned out too small
        report(spent, max(most, spent + 1))

    yield spend
    report(spent, spent)


def _silent(_done: int, _total: int) -> None:
    """Does nothing."""
