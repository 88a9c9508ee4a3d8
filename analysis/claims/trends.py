"""Predictions about trends with the noise rate or a hyper-parameter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.claims.coverage import coverage, coverage_of_all
from analysis.claims.differences import check_margin, check_margin_of, null_of
from analysis.claims.effect import Effect
from analysis.claims.prediction import (
    SIGNS,
    draws_of,
    effect_of,
    effect_over_cells,
    noisy_runs,
    not_measured,
    series_names,
)
from analysis.claims.quantities import Quantity, quantity
from analysis.claims.variants import CELL, PAIRED_BY, Variant, select, series_over
from analysis.statistics import Finding, slope_of, trend


@dataclass(frozen=True)
class Trend:
    """How a quantity of one method depends on the noise rate, or on a hyper-parameter of the method.

    Attributes:
        against: `"noise_rate"`, for the slope in each data set and kind of noise. Or a hyper-parameter, for the slope
            of each seed in each cell over runs that differ only in this hyper-parameter.
        noisy: whether only rates above 0 count.
        noise_kinds: if given, only noise of these kinds counts.
    """

    quantity: str
    method: Variant
    sign: int
    against: str = "noise_rate"
    noisy: bool = False
    noise_kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.by_rate:
            check_margin_of(self.quantity, self.sign)
        else:
            check_margin(
                self.sign, np.nan, "slopes over a hyper-parameter have none: predict a sign, 1 or -1"
            )

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        return (
            f"{quantity(self.quantity).words} against {self.against.replace('_', ' ')}, {self.method.title} "
            f"{SIGNS[self.sign]}"
        )

    def runs(self) -> str:
        """The runs that it needs."""
        kind = f" of {' or '.join(self.noise_kinds)} noise" if self.noise_kinds else ""
        if self.by_rate:
            return f"{self.method.title} at two or more noise rates{' above 0' if self.noisy else ''}{kind}"
        return f"{self.method.title} with two or more values of {self.against}, other things equal{kind}"

    @property
    def by_rate(self) -> bool:
        """Whether the trend is one with the noise rate."""
        return self.against == "noise_rate"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean slope over series of cells, or for a hyper-parameter over cells."""
        what = quantity(self.quantity)
        unit = f"{what.unit} per {'100% wrong labels' if self.by_rate else 'unit of ' + self.against}".strip()
        chosen = noisy_runs(table) if self.noisy or not self.by_rate else table
        if self.noise_kinds:
            chosen = chosen[chosen["noise_kind"].isin(self.noise_kinds)]
        runs = select(chosen, self.method) if self.by_rate else series_over(chosen, self.method, self.against)
        needs = self._lacks(table, runs, what)
        if needs:
            return not_measured(self, unit, needs)
        margin = what.margin if self.by_rate else np.nan
        return effect_of(
            self,
            unit=unit,
            finding=self._by_rate(runs, what) if self.by_rate else self._by_option(runs, what),
            margin=margin,
            null=null_of(self.sign, margin),
            coverage=coverage(chosen, runs, self.method.title, [what])
            if self.by_rate
            else coverage_of_all(runs, [what]),
        )

    def _lacks(self, table: pd.DataFrame, runs: pd.DataFrame, what: Quantity) -> str:
        if runs.empty:
            return self.runs()
        groups, level = (CELL[:2], "noise_rate") if self.by_rate else (PAIRED_BY, "option")
        return what.lacks(table) or (self.runs() if runs.groupby(groups)[level].nunique().max() < 2 else "")

    def _by_rate(self, runs: pd.DataFrame, what: Quantity) -> Finding:
        return trend(
            series_names(runs),
            runs["noise_rate"],
            what.values(runs),
            data_sets=runs["dataset"],
            draws=draws_of(runs),
            margin=what.margin,
        )

    def _by_option(self, runs: pd.DataFrame, what: Quantity) -> Finding:
        """One slope for each seed, because runs of a seed share their draws. Seeds of a cell repeat one measurement."""
        found = runs[[*PAIRED_BY, "option"]].assign(value=what.values(runs))
        seeds = found[found.groupby(PAIRED_BY)["option"].transform("nunique") > 1].groupby(PAIRED_BY)
        slopes = seeds[["option", "value"]].apply(
            lambda of_seed: slope_of(of_seed["option"].to_numpy(), of_seed["value"].to_numpy())
        )
        by_seed = slopes.rename("slope").reset_index()
        return effect_over_cells(by_seed, by_seed["slope"], counted="slopes of seeds")
