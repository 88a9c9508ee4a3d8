"""Results and verdicts as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from analysis.claims import Claim, Judgement
from analysis.claims.effect import (
    CONTRADICTED,
    CONTRADICTED_HERE,
    NOT_MEASURED,
    SUPPORTED,
    SUPPORTED_HERE,
    Effect,
)
from analysis.report.numbers import chosen, spread
from landscape.results.wording import percent

STYLES = {
    SUPPORTED: "green",
    SUPPORTED_HERE: "green",
    CONTRADICTED: "red",
    CONTRADICTED_HERE: "red",
}


MOST_OF_A_WORD = 40
"""Width of an interval, and largest width of most words."""


def print_whole(console: Console, view: Table) -> None:
    """Prints a table as wide as its numbers. A narrower terminal breaks the lines, so that no digit is lost."""
    for column in view.columns:
        words = [str(cell) for cell in column.cells]
        if column.justify == "left":
            words = [word for text in words for word in text.split()]
        column.min_width = min(MOST_OF_A_WORD, max(map(cell_len, words), default=1))
    before, any_width = console.width, console.options.update(max_width=10_000)
    console.width = max(before, Measurement.get(console, any_width, view).minimum)
    try:
        console.print(view, crop=False)
    finally:
        console.width = before


def results_table(table: pd.DataFrame) -> Table:
    """Mean and standard deviation over seeds for each noise rate and method, in the study's order."""
    view = Table(title="Results (mean ± standard deviation over seeds; accuracies and shares in %)")
    columns = (
        "noise",
        "method",
        "chosen",
        "last accuracy",
        "best",
        "memorized",
        "λmax observed",
        "sharpness clean",
    )
    for index, name in enumerate(columns):
        view.add_column(name, justify="left" if index < 3 else "right")
    several = [name for name in ("dataset", "noise_kind") if table[name].nunique() > 1]
    for noise, of_noise in table.groupby([*several, "noise_rate"], sort=True):
        for index, (method, runs) in enumerate(of_noise.groupby("method", sort=False)):
            diverged = int(runs["diverged"].sum())
            view.add_row(
                escape(", ".join([*map(str, noise[:-1]), percent(noise[-1])])) if index == 0 else "",
                escape(str(method)) + (f" ({diverged} diverged)" if diverged else ""),
                escape(chosen(runs)),
                spread(100 * runs["test_accuracy"], 1),
                spread(100 * runs["best_test_accuracy"], 1),
                spread(100 * runs["memorized"], 0),
                spread(runs["top_eigenvalue_observed"], 1),
                spread(runs["sharpness_clean"], 2),
            )
        view.add_section()
    return view


def verdicts_table(judgements: list[Judgement]) -> Table:
    """Each claim with its verdict, then its effects, with controls in gray."""
    view = Table(
        title="Verdicts (effect with 95% interval; p that decides, after Holm's correction over the family; n units)"
    )
    for name in ("claim", "", "effect", "p", "n", "verdict"):
        view.add_column(name, justify="right" if name in ("effect", "p", "n") else "left")
    for judgement in judgements:
        style = STYLES.get(judgement.verdict, "yellow")
        claim = judgement.claim
        measured = f" ({judgement.measured})" if judgement.measured else ""
        view.add_row(
            claim.id, escape(claim.statement), "", "", "", f"[bold {style}]{judgement.verdict}[/]{measured}"
        )
        for effect, said in zip(judgement.effects, judgement.conclusions, strict=True):
            view.add_row("", f"  {escape(effect.name)}", *_numbers(effect), effect.verdict)
            if said:
                view.add_row("", f"    {escape(said)}", "", "", "", "", style="italic")
        for effect in judgement.controls:
            if effect.verdict != NOT_MEASURED:
                view.add_row(
                    "", f"  control: {escape(effect.name)}", *_numbers(effect), effect.verdict, style="dim"
                )
        for text in judgement.missing:
            view.add_row("", f"  missing: {escape(text)}", "", "", "", "", style="dim")
        view.add_section()
    return view


def claims_table(claims: Iterable[Claim]) -> Table:
    """One row for each claim: statement, place in the paper, predictions, and the runs that it needs."""
    view = Table(title="Claims: what each predicts, written before the data")
    for name in ("claim", "statement and predictions", "needs"):
        view.add_column(name)
    for claim in claims:
        view.add_row(claim.id, f"[bold]{escape(claim.statement)}[/] ({escape(claim.place)})", "")
        for prediction in claim.predictions:
            view.add_row("", f"  {escape(prediction.describe())}", escape(prediction.runs()))
        for prediction in claim.controls:
            view.add_row(
                "", f"  control: {escape(prediction.describe())}", escape(prediction.runs()), style="dim"
            )
        view.add_section()
    return view


def _numbers(effect: Effect) -> tuple[str, str, str]:
    if math.isnan(effect.estimate):
        return "-", "-", "-"
    interval = f"{effect.estimate:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}]"
    lost = f" ({effect.lost} lost)" if effect.lost else ""
    return interval, f"{effect.deciding_p:.3f}", f"{effect.samples} {effect.counted}{lost}"
