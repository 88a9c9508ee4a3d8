"""The summary of a study for one screen: a table of results, and one line for each judged claim."""

from __future__ import annotations

import math
from collections.abc import Collection

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.claims import Judgement
from analysis.claims.effect import IN_THESE_CELLS, NOT_MEASURED, Effect
from analysis.report.console import STYLES, print_whole
from analysis.report.numbers import interval, p_value, spread
from landscape.results.wording import percent

WIDE = 80
"""Columns from which on there is room for what a narrow terminal leaves out."""
LEAST_OF_STATEMENT = 24
"""Columns, with the gap before them, from which on a part of a claim's statement says something."""
NARROW = 60
"""With fewer columns a line is broken: cut, it would lose digits."""
PER_RATE, SHORT_PER_RATE = " per 100% wrong labels", "/100%"
"""The end of a slope's unit, and what stands for that in a narrow column."""
SHORT = {here: f"{general}*" for general, here in IN_THESE_CELLS.items()}
"""One word for each verdict that holds only for the cells at hand."""


def print_results(table: pd.DataFrame, rates: Collection[float], console: Console) -> None:
    """Prints a table for each data set and kind of noise, at the largest noise rate with surfaces.

    Args:
        table: the table of all runs.
        rates: noise rates with surfaces. If there are none, the largest rate is shown.
        console: where the tables are printed.
    """
    for (dataset, kind), runs in table.groupby(["dataset", "noise_kind"], sort=True):
        drawn = [rate for rate in rates if (runs["noise_rate"] == rate).any()]
        rate = max(drawn or runs["noise_rate"])
        shown = runs[runs["noise_rate"] == rate]
        title = f"{dataset}, {kind} noise, {percent(rate)} wrong labels; mean ± s.d. over seeds"
        console.print(Text(title))
        print_whole(console, _of_one_rate(shown, is_wide=console.width >= WIDE))


def _of_one_rate(runs: pd.DataFrame, is_wide: bool) -> Table:
    view = Table(box=None, pad_edge=False)
    view.add_column("method", overflow="fold")
    for name in ("accuracy %", "memorized %", "λmax", *(["sharpness, nats"] if is_wide else [])):
        view.add_column(name, justify="right", no_wrap=True)
    for method, of_method in runs.groupby("method", sort=False):
        diverged = int(of_method["diverged"].sum())
        name = f"{method} ({diverged} diverged)" if diverged else str(method)
        numbers = [
            spread(100 * of_method["test_accuracy"], 1),
            spread(100 * of_method["memorized"], 0),
            spread(of_method["top_eigenvalue_observed"], 1),
            spread(of_method["sharpness_clean"], 2),
        ]
        view.add_row(Text(name), *numbers[: 4 if is_wide else 3])
    return view


def print_verdicts(judgements: list[Judgement], console: Console) -> None:
    """Prints one line a judged claim, and all that are not measured in one."""
    judged = [judgement for judgement in judgements if judgement.verdict != NOT_MEASURED]
    if judged:
        for line in _verdicts(judged, console.width):
            # print() joins its arguments into a text that forgets how the line is cut
            if console.width < NARROW:
                console.print(line, soft_wrap=True)
            else:
                console.print(line, no_wrap=True, overflow="ellipsis")
        console.print(Text(_what_marks_mean(judged)), style="dim", end="")
    unmeasured = [judgement.claim.id for judgement in judgements if judgement.verdict == NOT_MEASURED]
    if unmeasured:
        console.print(Text(f"not measured: {' '.join(unmeasured)}"))


def _verdicts(judged: list[Judgement], columns: int) -> list[Text]:
    """Lines of equal columns: as many as fit whole, and of the last one, the claim's statement, as much as fits."""
    rows = [["", "verdict", "effect [95% interval]", "p", "claim"]]
    rows += [_cells(judgement) for judgement in judged]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    up_to_p = sum(widths[:4]) + 2 * 3
    count = 3 if up_to_p > columns else 4 if up_to_p + LEAST_OF_STATEMENT > columns else 5
    shown, widths = [row[:count] for row in rows], widths[:count]
    styles = ["bold", *(STYLES.get(judgement.verdict, "yellow") for judgement in judged)]
    lines = []
    for row, style in zip(shown, styles, strict=True):
        line = Text()
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            line.append(cell + " " * (width - cell_len(cell) + 2), style=style if index < 2 else "")
        line.rstrip()
        lines.append(line)
    return lines


def _cells(judgement: Judgement) -> list[str]:
    effect = deciding(judgement)
    verdict = SHORT.get(judgement.verdict, judgement.verdict)
    return [
        judgement.claim.id,
        f"{verdict} {_share_measured(judgement)}" if judgement.measured else verdict,
        f"{interval(effect)} {effect.unit.replace(PER_RATE, SHORT_PER_RATE)}".strip(),
        p_value(effect),
        judgement.claim.statement,
    ]


def deciding(judgement: Judgement) -> Effect:
    """The first effect with the verdict of the claim; if there is none, the first one with a number."""
    measured = [effect for effect in judgement.effects if effect.verdict != NOT_MEASURED]
    with_number = [effect for effect in measured if math.isfinite(effect.estimate)] or measured
    return next((effect for effect in with_number if effect.verdict == judgement.verdict), with_number[0])


def _share_measured(judgement: Judgement) -> str:
    count = sum(effect.verdict != NOT_MEASURED for effect in judgement.effects)
    return f"{count}/{len(judgement.effects)}"


def _what_marks_mean(judged: list[Judgement]) -> str:
    lines = []
    if any(judgement.verdict in SHORT for judgement in judged):
        lines.append("*: about the data at hand, not about others like them\n")
    if any(deciding(judgement).unit.endswith(PER_RATE) for judgement in judged):
        lines.append(f"{SHORT_PER_RATE}:{PER_RATE}\n")
    partly = [judgement for judgement in judged if judgement.measured]
    if partly:
        lines.append(f"{_share_measured(partly[0])}: so many of the claim's predictions were measured\n")
    return "".join(lines)
