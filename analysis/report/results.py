"""The results of a study, one row for each method and noise rate, in the terminal and in the report."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.report.numbers import chosen, spread
from landscape.results.wording import percent, percents

NARROW = 60
"""The fewest columns of a terminal that shows every line whole."""
GAP = 2
FEWEST_NUMBERS = 3
"""The first numbers are always shown. A narrow terminal breaks the names of methods for them."""


@dataclass(frozen=True)
class Column:
    """One number of a method's runs.

    Attributes:
        name: the quantity in words, with its unit, if it has one, behind the last comma.
        cell: (the runs of one method and noise rate) -> mean and standard deviation in words.
        is_number: whether the cells are numbers, which stand at the right.
    """

    name: str
    cell: Callable[[pd.DataFrame], str]
    is_number: bool = True

    @property
    def head(self) -> list[str]:
        """The name in lines of at most 12 letters."""
        return [line for part in self.name.split(", ") for line in textwrap.wrap(part, 12)]


CHOSEN = Column("chosen settings", chosen, is_number=False)
COLUMNS = (
    Column("accuracy, last epoch, %", lambda runs: spread(100 * runs["test_accuracy"], 1)),
    Column("wrong labels memorized, %", lambda runs: spread(100 * runs["memorized"], 0)),
    Column("top eigenvalue", lambda runs: spread(runs["top_eigenvalue_observed"], 1)),
    Column("sharpness, true labels, nat", lambda runs: spread(runs["sharpness_clean"], 2)),
    Column("accuracy, best epoch, %", lambda runs: spread(100 * runs["best_test_accuracy"], 1)),
    CHOSEN,
)
"""What is shown of each method. A narrow terminal leaves out the last ones."""

MEANING = (
    "Mean ± standard deviation over seeds. Accuracy: on clean test data. Memorized: wrong labels that the network "
    "predicts. Top eigenvalue: of the Hessian of the cross-entropy with observed labels. Sharpness: the largest rise "
    "of the cross-entropy with true labels near the weights. Both are of the mean cross-entropy of training samples, "
    "whatever loss a method trains with."
)


def rows_of_noise(table: pd.DataFrame) -> Iterator[tuple[str, list[tuple[str, pd.DataFrame]]]]:
    """For each data set, noise kind and rate: its name, and the runs of each method in the study's order.

    The name leaves out the data set and the kind of noise that all runs share.
    """
    several = [name for name in ("dataset", "noise_kind") if table[name].nunique() > 1]
    words = percents(table["noise_rate"])
    for noise, of_noise in table.groupby([*several, "noise_rate"], sort=True):
        methods = [
            (_with_divergence(str(method), runs), runs)
            for method, runs in of_noise.groupby("method", sort=False)
        ]
        yield ", ".join([*map(str, noise[:-1]), f"{words[noise[-1]]} wrong labels"]), methods


def _with_divergence(method: str, runs: pd.DataFrame) -> str:
    diverged = int(runs["diverged"].sum())
    return f"{method} ({diverged} diverged)" if diverged else method


def print_results(table: pd.DataFrame, console: Console) -> None:
    """Prints the results at every noise rate, and says which columns the terminal has no room for."""
    grid = _Grid.of(list(rows_of_noise(table)), console.width)
    for index, (noise, methods) in enumerate(rows_of_noise(table)):
        console.print(Text(f"{noise}:"), style="bold")
        grid.print(methods, console, has_head=index == 0)
    console.print(Text(f"\n{MEANING}{grid.left_out}"), style="dim")


def print_results_of_one_rate(table: pd.DataFrame, rates: Collection[float], console: Console) -> None:
    """Prints a table for each data set and kind of noise, at the largest noise rate with surfaces.

    Args:
        table: the table of all runs.
        rates: noise rates with surfaces. If there are none, the largest rate is shown.
        console: where the tables are printed.
    """
    for (dataset, kind), runs in table.groupby(["dataset", "noise_kind"], sort=True):
        drawn = [rate for rate in rates if (runs["noise_rate"] == rate).any()]
        rate = max(drawn or runs["noise_rate"])
        rows = list(rows_of_noise(runs[runs["noise_rate"] == rate]))
        title = f"{dataset}, {kind} noise, {percent(rate)} wrong labels; mean ± s.d."
        console.print(Text(title))
        ((_, methods),) = rows
        _Grid.of(rows, console.width, COLUMNS[:4]).print(methods, console, has_head=True)


@dataclass(frozen=True)
class _Grid:
    """The columns that a terminal has room for, each with its width.

    Attributes:
        columns: what is shown.
        widths: width of the names of methods, then that of each column.
        absent: what is not shown.
    """

    columns: Sequence[Column]
    widths: Sequence[int]
    absent: Sequence[Column]

    @classmethod
    def of(
        cls,
        rows: list[tuple[str, list[tuple[str, pd.DataFrame]]]],
        width: int,
        columns: Sequence[Column] = COLUMNS,
    ) -> _Grid:
        """The columns for a terminal of this width."""
        methods = [method for _, of_noise in rows for method in of_noise]
        widths = [
            max(cell_len(text) for text in (*column.head, *(column.cell(runs) for _, runs in methods)))
            for column in columns
        ]
        names = ["method", *(name for name, _ in methods)]
        whole = max(map(cell_len, names))
        count = len(columns)
        while count > FEWEST_NUMBERS and whole + sum(widths[:count]) + GAP * count > width:
            count -= 1
        longest_word = max(cell_len(word) for name in names for word in name.split())
        room = width - sum(widths[:count]) - GAP * count
        return cls(columns[:count], [min(whole, max(room, longest_word)), *widths[:count]], columns[count:])

    @property
    def left_out(self) -> str:
        """A sentence about the columns that are not shown; empty if all are."""
        if not self.absent:
            return ""
        return f" A wider terminal shows also: {'; '.join(column.name for column in self.absent)}."

    def print(self, methods: list[tuple[str, pd.DataFrame]], console: Console, *, has_head: bool) -> None:
        """Prints the rows of these methods. A terminal that is too narrow breaks lines, but loses no digit."""
        view = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=has_head)
        view.add_column("method", width=self.widths[0], overflow="fold")
        for column, width in zip(self.columns, self.widths[1:], strict=True):
            view.add_column(
                "\n".join(column.head),
                width=width,
                justify="right" if column.is_number else "left",
                no_wrap=True,
            )
        for name, runs in methods:
            view.add_row(Text(name), *(Text(column.cell(runs)) for column in self.columns))
        before = console.width
        console.width = max(before, sum(self.widths) + GAP * len(self.columns))
        try:
            console.print(view, crop=False)
        finally:
            console.width = before
