"""What the person at the terminal sees of many runs at work."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from analysis.engine import Event


class RunsProgress:
    """A bar for all runs and one for each run in hand; plain lines where there is no terminal.

    Args:
        console: where to.
        title: of the whole.
        total: runs in all.
        finished: runs that were there already.
        names: id of a job -> what to call it.
    """

    def __init__(
        self, console: Console, title: str, *, total: int, finished: int, names: dict[str, str]
    ) -> None:
        self._console = console
        self._title = title
        self._total = total
        self._finished = finished
        self._names = names
        self._bars: dict[str, TaskID] = {}
        self._over: set[str] = set()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._whole = self._progress.add_task(title, total=total, completed=finished)

    def __enter__(self) -> RunsProgress:
        if not self._console.is_terminal:
            self._console.print(f"{self._title}: {self._finished} of {self._total} runs are there")
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, event: Event) -> None:
        """Shows what a job reported."""
        job, doing, done, total = event
        if job in self._over:
            return
        text = f"  {self._names[job]}: {doing}"
        if job not in self._bars:
            self._bars[job] = self._progress.add_task(text, total=total)
        self._progress.update(self._bars[job], description=text, completed=done)

    def finish(self, job: str, error: BaseException | None) -> None:
        """Takes a finished job's bar away; what the job reported may still arrive after its end."""
        self._over.add(job)
        if job in self._bars:
            self._progress.remove_task(self._bars.pop(job))
        self._finished += 1
        self._progress.update(self._whole, completed=self._finished)
        if error is not None:
            self._console.print(f"{self._names[job]} failed: {type(error).__name__}: {error}", style="red")
        elif not self._console.is_terminal and self._is_worth_a_line():
            self._console.print(f"{self._title}: {self._finished} of {self._total} runs done")

    def _is_worth_a_line(self) -> bool:
        tenth = max(1, self._total // 10)
        return self._finished % tenth == 0 or self._finished == self._total
