"""Predictions about the best value of a hyper-parameter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.claims.coverage import coverage_of_all
from analysis.claims.differences import check_margin
from analysis.claims.effect import Effect
from analysis.claims.limits import limits_of_difference
from analysis.claims.prediction import cell_names, draws_of, effect_of, not_measured
from analysis.claims.quantities import quantity
from analysis.claims.variants import PAIRED_BY, Variant, series_over
from analysis.statistics import best_among
from landscape.results.wording import percent

ROUNDING = 1e-9


@dataclass(frozen=True)
class Best:
    """Where the best value of a hyper-parameter lies at one noise rate: near the noise rate, above or below it.

    The effect is the outcome at the best value where it is predicted, less that at the best other value, paired by
    seed. Each value of the one kind is compared with each of the other (`analysis.statistics.best`).

    Attributes:
        option: a hyper-parameter. Values of both kinds were run, three or more in all, with nothing else changed.
        outcome: the quantity by which a value is the best; larger is better.
        rate: the noise rate.
        sign: 0 predicts that the best value is the noise rate, within `margin`; 1 that it is larger, -1 smaller.
        margin: how far from the noise rate a value may be that is near it.
    """

    option: str
    outcome: str
    method: Variant
    rate: float
    sign: int
    margin: float = np.nan

    def __post_init__(self) -> None:
        check_margin(self.sign, self.margin, "give Best its margin")

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        return (
            f"{quantity(self.outcome).words}, {self.method.title} at {percent(self.rate)}: best "
            f"{self.option.replace('_', ' ')} {self._where} less best other one > 0"
        )

    @property
    def _where(self) -> str:
        if self.sign == 0:
            return f"within {self.margin:g} of the noise rate"
        return f"{'above' if self.sign > 0 else 'below'} the noise rate"

    def runs(self) -> str:
        """The runs that it needs."""
        return (
            f"{self.method.title} at {percent(self.rate)} with three or more values of {self.option}, some "
            f"{self._where} and others not, other things equal"
        )

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean over cells of the mean over seeds. A seed in which a run diverged is lost."""
        what = quantity(self.outcome)
        at_rate = table[np.isclose(table["noise_rate"], self.rate)]
        runs = series_over(at_rate, self.method, self.option)
        values = np.sort(runs["option"].unique()) if len(runs) else np.array([])
        inside = self._inside(values)
        if len(values) < 3 or inside.all() or not inside.any():
            return not_measured(self, what.unit, self.runs())
        outcomes = runs.assign(outcome=what.values(runs)).pivot(
            index=PAIRED_BY, columns="option", values="outcome"
        )
        # a seed without a run for each value does not belong to this grid
        there = runs.groupby(PAIRED_BY)["option"].nunique().reindex(outcomes.index)
        outcomes = outcomes[there == len(values)]
        seeds = outcomes.index.to_frame(index=False)
        found = best_among(
            cell_names(seeds),
            outcomes.to_numpy(dtype=np.float64),
            inside,
            data_sets=seeds["dataset"],
            draws=draws_of(seeds),
            margin=what.margin,
            counted="seeds in cells",
        )
        effect = effect_of(
            self,
            unit=what.unit,
            finding=found,
            margin=what.margin,
            coverage=coverage_of_all(runs, [what]),
            limits=limits_of_difference(what),
        )
        # whatever place is predicted, its best value is better than the best other one
        return replace(effect, predicted=1)

    def _inside(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which values lie where the best one is predicted."""
        if self.sign == 0:
            return np.abs(values - self.rate) <= self.margin + ROUNDING
        return self.sign * (values - self.rate) > ROUNDING
