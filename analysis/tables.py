"""Results and verdicts as tables for the terminal."""

from __future__ import annotations

import json

import pandas as pd
from rich.table import Table

from analysis.claims import Judgement
from analysis.statistics import CONTRADICTED, SUPPORTED, Effect

STYLES = {SUPPORTED: "green", CONTRADICTED: "red"}


def results_table(table: pd.DataFrame) -> Table:
    """Mean and standard deviation over seeds for each noise rate and method, in the study's order."""
    view = Table(title="Results (mean ± standard deviation over seeds; accuracies and shares in %)")
    columns = (
        "noise",
        "method",
        "chosen",
        "last accuracy",
        "best",
        "memorised",
        "λmax observed",
        "sharpness clean",
    )
    for index, name in enumerate(columns):
        view.add_column(name, justify="left" if index < 3 else "right")
    for rate, of_rate in table.groupby("noise_rate", sort=True):
        for index, (method, runs) in enumerate(of_rate.groupby("method", sort=False)):
            diverged = int(runs["diverged"].sum())
            view.add_row(
                f"{rate:.0%}" if index == 0 else "",
                str(method) + (f" ({diverged} diverged)" if diverged else ""),
                _chosen(runs["hyperparameters"].iloc[0]),
                _spread(100 * runs["test_accuracy"], 1),
                _spread(100 * runs["best_test_accuracy"], 1),
                _spread(100 * runs["memorized"], 0),
                _spread(runs["top_eigenvalue_observed"], 1),
                _spread(runs["sharpness_clean"], 2),
            )
        view.add_section()
    return view


def _chosen(text: str) -> str:
    settings = json.loads(text)
    return " ".join(
        f"{name} {settings[name]:g}" for name in ("rho", "strength", "flip_ratio") if name in settings
    )


def _spread(values: pd.Series, digits: int) -> str:
    if values.isna().all():
        return "-"
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def verdicts_table(judgements: list[Judgement]) -> Table:
    """Each claim with its verdict, then the effects that decide it; controls in grey."""
    view = Table(title="Verdicts (effect with 95% bootstrap interval; p of a permutation test; n units)")
    for name in ("claim", "", "effect", "p", "n", "verdict"):
        view.add_column(name, justify="right" if name in ("effect", "p", "n") else "left")
    for judgement in judgements:
        style = STYLES.get(judgement.verdict, "yellow")
        view.add_row(judgement.id, judgement.statement, "", "", "", f"[bold {style}]{judgement.verdict}[/]")
        for effect in judgement.effects:
            view.add_row("", f"  {_signed(effect)}", *_numbers(effect), effect.verdict)
        for effect in judgement.controls:
            view.add_row("", f"  control: {effect.name}", *_numbers(effect), "", style="dim")
        view.add_section()
    return view


def _signed(effect: Effect) -> str:
    return f"{effect.name} {'>' if effect.predicted > 0 else '<'} 0"


def _numbers(effect: Effect) -> tuple[str, str, str]:
    interval = f"{effect.estimate:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}]"
    lost = f" ({effect.lost} lost)" if effect.lost else ""
    return interval, f"{effect.p_value:.3f}", f"{effect.samples}{lost}"
