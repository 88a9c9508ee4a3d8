"""Predictions of claims about measured quantities, and how a prediction becomes an effect.

Each prediction is a small value with three methods. `describe()` is the prediction in words.
`runs()` names the runs that it needs. `effect(table)` is the result of its test on a table of runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import pandas as pd
from numpy.typing import ArrayLike

from analysis.claims.coverage import Coverage
from analysis.claims.effect import Effect
from analysis.claims.quantities import Quantity
from analysis.claims.variants import PAIRED_BY, Variant
from analysis.plan.run_config import REDRAWN
from analysis.statistics import Finding, paired_effect
from landscape.results.wording import percents

SIGNS = {1: "> 0", -1: "< 0", 0: "= 0, within the margin"}
NEEDS_NOISE, NEEDS_CLEAN = "runs with wrong labels", "runs without wrong labels"


class Prediction(Protocol):
    """A claim's prediction about a measured quantity."""

    @property
    def sign(self) -> int:
        """+1, -1, or 0: no difference."""

    def describe(self) -> str:
        """Quantity, comparison and sign."""

    def runs(self) -> str:
        """The runs that it needs."""

    def effect(self, table: pd.DataFrame) -> Effect:
        """Estimate, interval and test."""


def effect_of(
    prediction: Prediction,
    *,
    unit: str,
    finding: Finding,
    coverage: Coverage,
    margin: float = math.nan,
    null: tuple[float, float] = (0.0, 0.0),
    vacuous: bool = False,
    limits: tuple[float, float] = (-math.inf, math.inf),
    note: str = "",
) -> Effect:
    """The effect of a prediction whose quantity was measured. The arguments are attributes of `Effect`."""
    return Effect(
        name=prediction.describe(),
        predicted=prediction.sign,
        unit=unit,
        finding=finding,
        margin=margin,
        null=null,
        coverage=coverage,
        vacuous=vacuous,
        limits=limits,
        note=note,
    )


def not_measured(prediction: Prediction, unit: str, needs: str) -> Effect:
    """The effect of a prediction whose runs or measurements are missing."""
    return Effect(name=prediction.describe(), predicted=prediction.sign, unit=unit, needs=needs)


CLEAN = ", without wrong labels"
"""Ends the name of an effect that is about runs without wrong labels."""


def noisy_runs(table: pd.DataFrame, *, clean: bool = False) -> pd.DataFrame:
    """The runs with wrong labels, or those without."""
    return table[table["noise_rate"] == 0] if clean else table[table["noise_rate"] > 0]


def joined(table: pd.DataFrame, columns: Sequence[str], between: str = "|") -> pd.Series:
    """One label for each run, joined from several columns."""
    first, *others = (table[name].astype(str) for name in columns)
    for other in others:
        first = first + between + other
    return first


def cell_names(runs: pd.DataFrame) -> pd.Series:
    """The cell of each run: the noise rate, as in "40%"; with data set and kind of noise if there are several.

    Rates that differ have names that differ.
    """
    rate = runs["noise_rate"].map(percents(runs["noise_rate"]))
    several = [name for name in ("dataset", "noise_kind") if runs[name].nunique() > 1]
    return rate + ", " + joined(runs, several, ", ") if several else rate


def series_names(runs: pd.DataFrame) -> pd.Series:
    """The series of each run: its data set and kind of noise, without the part that all runs share."""
    several = [name for name in ("dataset", "noise_kind") if runs[name].nunique() > 1]
    return joined(runs, several or ["dataset"], ", ")


def draws_of(runs: pd.DataFrame, draw: Sequence[str] = PAIRED_BY) -> pd.Series:
    """What names the random draws of each run, as the plan derives their seeds (`analysis.plan.seeds`).

    Labels that are redrawn and labels that stay share the seeds of their kind of noise: initial weights, order of
    samples, and first labels.

    Args:
        runs: the runs.
        draw: the columns that name a draw: without the noise rate, if one run is compared at several rates.
    """
    return joined(runs.assign(noise_kind=runs["noise_kind"].str.removesuffix(REDRAWN)), draw)


def effect_over_cells(
    runs: pd.DataFrame,
    values: ArrayLike,
    *,
    draw: Sequence[str] = PAIRED_BY,
    null: tuple[float, float] = (0.0, 0.0),
    margin: float = math.nan,
    counted: str = "pairs",
) -> Finding:
    """The mean over cells of the mean of each, with the data sets and the shared draws of the runs.

    Args:
        runs: a row with the columns `PAIRED_BY` for each value.
        values: float64 (rows,), NaN where a run has no number.
        draw: the columns that name a draw, see `draws_of`.
        null: values that the null hypothesis allows.
        margin: the smallest value that matters.
        counted: word for the values.
    """
    return paired_effect(
        cell_names(runs),
        values,
        data_sets=runs["dataset"],
        draws=draws_of(runs, draw),
        null=null,
        margin=margin,
        counted=counted,
    )


def lacking(
    table: pd.DataFrame,
    chosen: pd.DataFrame,
    quantities: Sequence[Quantity],
    *of_methods: tuple[Variant, pd.DataFrame],
) -> str:
    """What a prediction lacks: wrong labels, a method's runs, or measurements. Empty if nothing is missing.

    Args:
        table: all runs.
        chosen: the runs that the prediction may use.
        quantities: the quantities that it compares.
        of_methods: the methods that it compares, each with its runs.
    """
    if chosen.empty:
        return NEEDS_NOISE
    absent = [variant.title for variant, runs in of_methods if runs.empty]
    if absent:
        return f"runs of {' and of '.join(absent)}"
    return next((words for what in quantities if (words := what.lacks(table))), "")
