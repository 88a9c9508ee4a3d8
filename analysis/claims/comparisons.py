"""The kinds of predictions: which quantity, which sign, over which comparison, and the effect in a table of runs.

Each is a small value with `describe()`, what it predicts in words, written before the data; `runs()`, the runs it
needs; and `effect(table)`, what the data say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
import scipy.stats

from analysis.claims.quantities import Quantity, quantity
from analysis.claims.variants import (
    CELL,
    Variant,
    distinct_methods,
    hyperparameters_of,
    select,
    select_both,
    series_over,
)
from analysis.statistics import (
    Effect,
    conditional_information,
    not_measured,
    paired_effect,
    rank_association,
    trend,
)
from analysis.wording import percent

SIGNS = {1: "> 0", -1: "< 0", 0: "= 0, within the margin"}
NEEDS_NOISE = "runs with wrong labels"


class Prediction(Protocol):
    """What a claim predicts of a measured quantity."""

    @property
    def sign(self) -> int:
        """+1, -1, or 0: no difference."""

    def describe(self) -> str:
        """Quantity, comparison and sign."""

    def runs(self) -> str:
        """The runs that it needs."""

    def effect(self, table: pd.DataFrame) -> Effect:
        """Estimate, interval and test."""


@dataclass(frozen=True)
class Difference:
    """A quantity of one method less that of another, paired by data set, noise and seed, where labels are wrong.

    The effect at each noise rate is shown beside the pooled one, and whether it reverses is tested.
    """

    quantity: str
    more: Variant
    less: Variant
    sign: int

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        return f"{quantity(self.quantity).words}: {self.more.title} less {self.less.title} {SIGNS[self.sign]}"

    def runs(self) -> str:
        """The runs that it needs."""
        return f"{self.more.title} and {self.less.title} with the same wrong labels and seeds"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean of the paired differences."""
        what = quantity(self.quantity)
        noisy = what.measured(_noisy(table))
        more, less = select_both(noisy, self.more, self.less)
        lacking = _lacking(what.lacks(table), noisy, (self.more, more), (self.less, less))
        if lacking:
            return not_measured(self.describe(), self.sign, what.unit, lacking)
        first = more[CELL].assign(more=what.values(more))
        pairs = first.merge(less[CELL].assign(less=what.values(less)), on=CELL)
        effect = paired_effect(
            self.describe(),
            pairs["more"] - pairs["less"],
            predicted=self.sign,
            unit=what.unit,
            margin=what.margin,
            strata=_noise_of(pairs),
        )
        return replace(
            effect,
            missing=(
                *_missing(noisy, more, self.more.title, what.values(more)),
                *_missing(noisy, less, self.less.title, what.values(less)),
            ),
        )


@dataclass(frozen=True)
class Level:
    """The sign of a quantity itself, in the runs of one method, or of all, averaged for each data set, noise and seed.

    Attributes:
        method: whose runs; None: all.
        everywhere: it has to have that sign in each single run, at every noise rate, 0 among them.
        exceptions: share of the runs that may fail all the same.
    """

    quantity: str
    method: Variant | None
    sign: int
    everywhere: bool = False
    exceptions: float = 0.0

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        where = f", {self.method.title}" if self.method else ""
        return f"{quantity(self.quantity).words}{where} {SIGNS[self.sign]}{' in every run' if self.everywhere else ''}"

    def runs(self) -> str:
        """The runs that it needs."""
        who = self.method.title if self.method else "any method"
        return who if self.everywhere else f"{who} with wrong labels"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean over data sets, noise and seeds."""
        what = quantity(self.quantity)
        table = what.measured(table if self.everywhere else _noisy(table))
        runs = table if self.method is None else select(table, self.method)
        named = [(self.method, runs)] if self.method else []
        lacking = _lacking(what.lacks(table), table, *named)
        if not lacking:
            lacking = what.lacks(runs)
        if lacking:
            return not_measured(self.describe(), self.sign, what.unit, lacking)
        values = what.values(runs)
        found = runs[CELL].assign(value=values)
        # a run that diverged makes the whole cell NaN
        cells = found.groupby(CELL)["value"].agg(lambda values: values.mean(skipna=False)).reset_index()
        effect = paired_effect(
            self.describe(),
            cells["value"],
            predicted=self.sign,
            unit=what.unit,
            margin=what.margin,
            strata=_noise_of(cells),
        )
        wrong = int((found["value"] * self.sign <= 0).sum()) if self.everywhere else 0
        if wrong <= self.exceptions * len(found):
            wrong = 0
        missing = (
            _missing(table, runs, self.method.title, values)
            if self.method
            else _missing_of_all(runs, [values])
        )
        return replace(effect, violations=wrong, missing=missing)


@dataclass(frozen=True)
class Trend:
    """How a quantity of one method goes with the noise rate, or with a hyper-parameter of it, within data sets.

    Attributes:
        against: `"noise_rate"`, or a hyper-parameter: over runs that differ in nothing but it and the seed.
        noisy: only rates above 0.
        noise_kinds: only noise of these kinds, if given.
    """

    quantity: str
    method: Variant
    sign: int
    against: str = "noise_rate"
    noisy: bool = False
    noise_kinds: tuple[str, ...] = ()

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        return (
            f"{quantity(self.quantity).words} against {self.against.replace('_', ' ')}, {self.method.title} "
            f"{SIGNS[self.sign]}"
        )

    def runs(self) -> str:
        """The runs that it needs."""
        kind = f" of {' or '.join(self.noise_kinds)} noise" if self.noise_kinds else ""
        if self.against == "noise_rate":
            return f"{self.method.title} at two or more noise rates{' above 0' if self.noisy else ''}{kind}"
        return f"{self.method.title} with two or more values of {self.against}, other things equal{kind}"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The slope within data sets and kinds of noise, or, against a hyper-parameter, within noise rates too."""
        what = quantity(self.quantity)
        by_rate = self.against == "noise_rate"
        table = what.measured(_noisy(table) if self.noisy or not by_rate else table)
        if self.noise_kinds:
            table = table[table["noise_kind"].isin(self.noise_kinds)]
        strata = ["dataset", "noise_kind"] if by_rate else CELL[:3]
        if by_rate:
            runs = select(table, self.method)
            levels = runs["noise_rate"]
        else:
            runs = series_over(table, self.method, self.against)
            levels = runs["option"] if len(runs) else pd.Series(dtype=float)
        unit = f"{what.unit} per {'100% wrong labels' if by_rate else 'unit of ' + self.against}".strip()
        lacking = what.lacks(table) if len(runs) else self.runs()
        if not lacking and levels.groupby(_join(runs, strata)).nunique().max() < 2:
            lacking = self.runs()
        if lacking:
            return not_measured(self.describe(), self.sign, unit, lacking)
        values = what.values(runs)
        effect = trend(
            self.describe(),
            levels,
            values,
            predicted=self.sign,
            unit=unit,
            strata=_join(runs, strata),
            blocks=None if by_rate else runs["seed"],
            margin=what.margin if by_rate else np.nan,
        )
        missing = (
            _missing(table, runs, self.method.title, values) if by_rate else _missing_of_all(runs, [values])
        )
        return replace(effect, missing=missing)


@dataclass(frozen=True)
class Association:
    """Kendall's tau of two quantities over methods, within data set and noise; `given` makes it partial."""

    quantity: str
    outcome: str
    sign: int
    given: str | None = None

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        words, outcome = quantity(self.quantity).words, quantity(self.outcome).words
        given = f", given {quantity(self.given).words}" if self.given else ""
        return f"{words} with {outcome} over methods, within noise rate{given} {SIGNS[self.sign]}"

    def runs(self) -> str:
        """The runs that it needs."""
        return "four or more methods (five for a verdict) at each noise rate above 0"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean tau over data sets and noise."""
        names = [self.quantity, self.outcome, *([self.given] if self.given else [])]
        quantities = [quantity(name) for name in names]
        noisy = distinct_methods(_comparable(table, quantities))
        lacking = _lacking(next((q.lacks(table) for q in quantities if q.lacks(table)), ""), noisy)
        if lacking:
            return not_measured(self.describe(), self.sign, "Kendall's tau", lacking)
        values = [q.values(noisy) for q in quantities]
        effect = rank_association(
            self.describe(),
            _join(noisy, CELL[:3]),
            noisy["method"],
            values[0],
            values[1],
            given=values[2] if self.given else None,
            predicted=self.sign,
        )
        return replace(effect, missing=_missing_of_all(noisy, values))


@dataclass(frozen=True)
class Information:
    """What a quantity tells of another's order over methods, within data set and noise, beyond hyper-parameters."""

    quantity: str
    outcome: str
    sign: int = 1

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        words, outcome = quantity(self.quantity).words, quantity(self.outcome).words
        return f"what {words} tells of {outcome} within noise rate, whatever hyper-parameters are given {SIGNS[1]}"

    def runs(self) -> str:
        """The runs that it needs."""
        return (
            "four or more methods at each noise rate above 0, several of them with the same hyper-parameter"
        )

    def effect(self, table: pd.DataFrame) -> Effect:
        """The least normalised conditional mutual information, above chance."""
        measure, outcome = quantity(self.quantity), quantity(self.outcome)
        noisy = distinct_methods(_comparable(table, [measure, outcome]))
        lacking = _lacking(measure.lacks(table) or outcome.lacks(table), noisy)
        if lacking:
            return not_measured(self.describe(), 1, "share of entropy", lacking)
        x, y = measure.values(noisy), outcome.values(noisy)
        effect = conditional_information(
            self.describe(), _join(noisy, CELL[:3]), noisy["method"], x, y, hyperparameters_of(noisy)
        )
        return replace(effect, missing=_missing_of_all(noisy, [x, y]))


@dataclass(frozen=True)
class Best:
    """The value of a hyper-parameter with the best outcome, less the noise rate, at one noise rate, seed by seed.

    Attributes:
        option: a hyper-parameter, three or more values of which were run with nothing else changed.
        rate: the noise rate.
        sign: 0: the best value is the noise rate, within `margin`.
    """

    option: str
    outcome: str
    method: Variant
    rate: float
    sign: int
    margin: float = np.nan

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        return (
            f"best {self.option.replace('_', ' ')} of {self.method.title} by {quantity(self.outcome).words}, less the "
            f"noise rate, at {self.rate:.0%} {SIGNS[self.sign]}"
        )

    def runs(self) -> str:
        """The runs that it needs."""
        return f"{self.method.title} with three or more values of {self.option} at {self.rate:.0%}, other things equal"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean over seeds; a seed in which a run diverged is lost.

        By chance too some value is the best one, and on average the middle one: whether the values differ at all is
        tested as well (Friedman's test over seeds), and the larger p-value counts.
        """
        what = quantity(self.outcome)
        at_rate = table[np.isclose(table["noise_rate"], self.rate)]
        runs = series_over(at_rate, self.method, self.option)
        if runs.empty or runs["option"].nunique() < 3:
            return not_measured(self.describe(), self.sign, "share", self.runs())
        values = what.values(runs)
        outcomes = runs.assign(outcome=values).pivot(index=CELL, columns="option", values="outcome")
        # a seed without a run for each value is none of this grid
        there = runs.groupby(CELL)["option"].nunique().reindex(outcomes.index)
        outcomes = outcomes[there == runs["option"].nunique()]
        whole = outcomes.dropna()
        best = whole.idxmax(axis=1).reindex(outcomes.index)
        effect = paired_effect(
            self.describe(),
            best.to_numpy(dtype=np.float64) - self.rate,
            predicted=self.sign,
            unit="share",
            margin=self.margin,
        )
        differ = _friedman(whole.to_numpy(dtype=np.float64))
        return replace(
            effect,
            p_value=float(np.maximum(effect.p_value, differ)),
            equivalence_p=float(np.maximum(effect.equivalence_p, differ)),
            test=f"{effect.test} and Friedman's",
            missing=_missing_of_all(runs, [values]),
        )


def _friedman(outcomes: np.ndarray) -> float:
    """The p-value of Friedman's test that the columns do not differ, over rows; 1 where there is none."""
    if len(outcomes) < 2 or np.ptp(outcomes) == 0:
        return 1.0
    return float(scipy.stats.friedmanchisquare(*outcomes.T).pvalue)


def _noisy(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["noise_rate"] > 0]


def _comparable(table: pd.DataFrame, quantities: Sequence[Quantity]) -> pd.DataFrame:
    """The noisy runs that a comparison over methods may hold: their training loss is one and the same."""
    noisy = _noisy(table)
    noisy = noisy[(noisy["loss"] == "cross-entropy") & (noisy["mixup"] == 0)]
    for what in quantities:
        noisy = what.measured(noisy)
    return noisy


def _join(table: pd.DataFrame, columns: Sequence[str], between: str = "|") -> pd.Series:
    first, *others = (table[name].astype(str) for name in columns)
    for other in others:
        first = first + between + other
    return first


def _noise_of(cells: pd.DataFrame) -> pd.Series:
    """The rate, as in "40%", with data set and kind of noise where there are several."""
    rate = cells["noise_rate"].map(percent)
    several = [name for name in ("dataset", "noise_kind") if cells[name].nunique() > 1]
    return rate + ", " + _join(cells, several, ", ") if several else rate


def _lacking(columns: str, noisy: pd.DataFrame, *of_methods: tuple[Variant, pd.DataFrame]) -> str:
    """What is not there at all: measurements, wrong labels, or a method's runs."""
    if noisy.empty:
        return NEEDS_NOISE
    absent = [variant.title for variant, runs in of_methods if runs.empty]
    if absent:
        return f"runs of {' and of '.join(absent)}"
    return columns


def _missing(table: pd.DataFrame, runs: pd.DataFrame, title: str, values: pd.Series) -> tuple[str, ...]:
    """The cells of the study's grid in which a method has no run, or one without a finite value, by noise."""
    states = dict.fromkeys(_cells(table), "no run")
    diverged = runs["diverged"].astype(bool) if "diverged" in runs else pd.Series(False, index=runs.index)
    for cell, value, broke in zip(_cells(runs), values, diverged, strict=True):
        state = "" if np.isfinite(value) else "diverged" if broke else "not measured"
        # of several runs in a cell the worst
        if state == "diverged" or states[cell] != "diverged":
            states[cell] = state or ("" if states[cell] == "no run" else states[cell])
    seeds: dict[tuple[Any, ...], list[str]] = {}
    for (*noise, seed), state in sorted(states.items()):
        if state:
            seeds.setdefault((*noise, state), []).append(str(seed))
    return tuple(
        f"{title}, {dataset}, {kind} {percent(rate)}, seed {', '.join(of_state)}: {state}"
        for (dataset, kind, rate, state), of_state in seeds.items()
    )


def _missing_of_all(table: pd.DataFrame, values: Sequence[pd.Series]) -> tuple[str, ...]:
    """The cells in which any method of the table has no run, or one without all of the values."""
    defined = pd.concat(values, axis=1).sum(axis=1, skipna=False)
    return tuple(
        text
        for title, runs in table.groupby("method", sort=True)
        for text in _missing(table, runs, str(title), defined[runs.index])
    )


def _cells(runs: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(zip(*(runs[name].tolist() for name in CELL), strict=True))
