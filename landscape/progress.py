"""Progress of long measurements."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (points done, points in all)."""


def on_terminal(title: str) -> Progress:
    """Shows the progress in one line on standard error, which is written anew once a second at most."""
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
        sys.stderr.write(f"\r{title}: {done} of {total} points, {left:.0f} s left \x1b[K{end}")
        sys.stderr.flush()

    return show


def as_progress(progress: Progress | bool | None, title: str) -> Progress:
    """The function to call: the caller's, one that writes a line on the terminal for True, or one that does nothing."""
    if callable(progress):
        return progress
    return on_terminal(title) if progress else _silent


def _silent(_done: int, _total: int) -> None:
    """Does nothing."""
