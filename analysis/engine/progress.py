"""The progress of many runs on the terminal."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.text import Text

from analysis.engine import Event
from analysis.engine.time_left import in_words, time_left
from analysis.plan.own_parts import told
from analysis.printable import say


class Planned(NamedTuple):
    """A run with its name and its kind. Runs of a kind take about the same time."""

    name: str
    kind: str


class InHand(NamedTuple):
    """The progress of a run that is executing."""

    started: float
    doing: str
    done: int
    total: int


class RunsProgress:
    """One live line about all runs with the time left, or plain lines if there is no terminal.

    Args:
        console: where the lines are printed.
        planned: id -> run, in the order in which the runs are executed.
        finished: ids of the runs that had finished before.
        workers: returns the number of workers. It is called at the end of each run, because a cluster may grow.
        finished_are: words for the finished runs at the start.
    """

    def __init__(
        self,
        console: Console,
        planned: Mapping[str, Planned],
        finished: Collection[str],
        workers: Callable[[], int],
        finished_are: str = "there",
    ) -> None:
        self._console = console
        self._planned = planned
        self._ask_workers = workers
        self._workers = workers()
        self._total = Counter(run.kind for run in planned.values())
        self._over = {job for job in planned if job in finished}
        self._ended = Counter(planned[job].kind for job in self._over)
        self._failed = 0
        self._before = len(self._over)
        self._finished_are = finished_are
        # a key for each kind from the start, because the thread that draws iterates over them
        self._seconds: dict[str, list[float]] = {kind: [] for kind in self._total}
        self._in_hand: dict[str, InHand] = {}
        self._live = Live(console=console, get_renderable=self._shown, transient=True)

    def __enter__(self) -> RunsProgress:
        self._console.print(f"{len(self._over)} of {len(self._planned)} runs are {self._finished_are}")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
            self._console.print(self._summary())

    def update(self, event: Event) -> None:
        """Shows the progress that a run has reported."""
        job, doing, done, total = event
        if job in self._over:
            # reports of a run may arrive after its end
            return
        known = self._in_hand.get(job)
        self._in_hand[job] = InHand(known.started if known else time.monotonic(), doing, done, total)

    def finish(self, job: str, seconds: float | None, error: BaseException | None) -> None:
        """Shows that a run has ended, with its seconds or with its error."""
        name, kind = self._planned[job]
        self._end(job)
        self._workers = self._ask_workers()
        if error is not None:
            self._failed += 1
            say(self._console, f"{name} failed: {told(error)}", style="red")
        elif seconds is not None:
            self._seconds[kind].append(seconds)
        if not self._console.is_terminal and self._is_worth_a_line():
            self._console.print(self._summary())

    def leave_out(self, job: str) -> None:
        """Shows that a run cannot be executed because another run that it needs has failed."""
        self._failed += 1
        self._end(job)

    def _end(self, job: str) -> None:
        self._over.add(job)
        self._ended[self._planned[job].kind] += 1
        self._in_hand.pop(job, None)

    def _summary(self) -> Text:
        failed = f", {self._failed} failed" if self._failed else ""
        line = f"{len(self._over) - self._failed} of {len(self._planned)} runs done{failed}"
        return Text(line if len(self._over) == len(self._planned) else f"{line}; time left: {self._left()}")

    def _left(self) -> str:
        now = time.monotonic()
        left = {kind: count - self._ended[kind] for kind, count in self._total.items()}
        in_hand = [(self._planned[job].kind, now - run.started) for job, run in list(self._in_hand.items())]
        done = {kind: [*seconds] for kind, seconds in self._seconds.items()}
        return in_words(time_left(done, left, in_hand, self._workers))

    def _shown(self) -> Text:
        """One line: the number of finished runs, the time left, and the run that began last."""
        line = self._summary()
        # a copy, because the thread that draws calls this method
        at_work = list(self._in_hand.items())
        if at_work:
            job, run = at_work[-1]
            line.append(f"; {self._planned[job].name}: {run.doing} {run.done} of {run.total}")
        line.no_wrap, line.overflow = True, "ellipsis"
        return line

    def _is_worth_a_line(self) -> bool:
        """Whether a plain line is printed now: at the first run's end, which tells the time left, and four times."""
        quarter = max(1, math.ceil(len(self._planned) / 4))
        over = len(self._over)
        return over == self._before + 1 or over % quarter == 0 or over == len(self._planned)
