"""A measured prediction and its verdict. Signs and margins are judged here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from analysis.claims.coverage import Coverage
from analysis.statistics import FEWEST_DATA_SETS, THESE, Finding, Part, Test, holm, nothing_found

SIGNIFICANCE = 0.05

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
EQUIVALENT = "equivalent"
SUPPORTED_HERE = "supported in these cells"
CONTRADICTED_HERE = "contradicted in these cells"
EQUIVALENT_HERE = "equivalent in these cells"
MIXED = "mixed"
VACUOUS = "vacuous"
INCONCLUSIVE = "inconclusive"
NOT_MEASURED = "not measured"

WITHIN_THE_MARGIN, OPPOSITE_SIGNS = "within the margin", "opposite signs"

OF_SEEDS = ("pairs", "seeds in cells", "slopes of seeds")
"""Names of the units of which a cell has one for each seed."""

IN_THESE_CELLS = {
    SUPPORTED: SUPPORTED_HERE,
    CONTRADICTED: CONTRADICTED_HERE,
    EQUIVALENT: EQUIVALENT_HERE,
}
"""Verdict about data like these -> the same verdict about the cells at hand only."""

VERDICTS = {
    SUPPORTED: "the effect has the predicted sign in data like these",
    CONTRADICTED: "the effect has the opposite sign in data like these",
    EQUIVALENT: "the effect in data like these is smaller than the margin below which it does not matter",
    SUPPORTED_HERE: (
        f"the same of the cells at hand: fewer than {FEWEST_DATA_SETS} data sets say nothing of others"
    ),
    CONTRADICTED_HERE: "the effect has the opposite sign in the cells at hand",
    EQUIVALENT_HERE: "the effect in the cells at hand is smaller than the margin",
    MIXED: "the sign depends on the cell",
    VACUOUS: "it cannot fail, such as a bound above the largest value that the loss can have",
    INCONCLUSIVE: "the data allow either sign",
    NOT_MEASURED: "the runs or measurements that it needs are not there",
}
"""Verdict -> what it means for a prediction."""


@dataclass(frozen=True)
class Effect:
    """One measured prediction.

    Attributes:
        name: the comparison in words.
        predicted: the sign that the claim predicts: +1 or -1, or 0 for no difference.
        unit: unit of the estimate.
        finding: the result of the tests; it has no places if nothing was measured.
        margin: the smallest effect that matters; NaN if every effect matters.
        null: the null hypothesis: values of the effect from the first to the second.
        coverage: the runs that are missing or did not converge.
        needs: what must be run or measured first; empty if nothing is missing.
        vacuous: whether the prediction could not fail in any of these runs.
        limits: the smallest and the largest value that the effect can have.
        note: what the reader should know of the comparison; empty if nothing.
        tests: number of effects of the family, which share an error rate.
        equivalences: number of equivalences of the family, which share another one.
        adjusted: the p-values (effect, equivalence, reversal) after Holm's correction over the family. If given, they
            decide.
    """

    name: str
    predicted: int
    unit: str
    finding: Finding = field(default_factory=lambda: nothing_found("none", 0, "runs", 0))
    margin: float = math.nan
    null: tuple[float, float] = (0.0, 0.0)
    coverage: Coverage = Coverage()
    needs: str = ""
    vacuous: bool = False
    limits: tuple[float, float] = (-math.inf, math.inf)
    note: str = ""
    tests: int = 1
    equivalences: int = 1
    adjusted: tuple[float, float, float] | None = None

    @property
    def test(self) -> Test:
        """The test that decides."""
        return self.finding.deciding

    @property
    def estimand(self) -> str:
        """Whether the effect is a property of these cells, `THESE`, or of data like these, `LIKE_THESE`."""
        return self.test.estimand

    @property
    def estimate(self) -> float:
        """The effect; NaN if nothing could be compared."""
        return self.test.estimate

    @property
    def low(self) -> float:
        """Lower end of the 95% interval, which holds no value that the effect cannot have."""
        return self.within(self.test.low, self.estimate)

    @property
    def high(self) -> float:
        """Upper end of the 95% interval, which holds no value that the effect cannot have."""
        return self.within(self.test.high, self.estimate)

    def within(self, end: float, estimate: float) -> float:
        """The end of an interval about an estimate, cut at the values that the effect can have."""
        low, high = min(self.limits[0], estimate), max(self.limits[1], estimate)
        # NaN, the end of no interval, stays NaN
        return float(np.clip(end, low, high)) if math.isfinite(estimate) else end

    @property
    def samples(self) -> int:
        """The number of independent units."""
        return self.test.units

    @property
    def counted(self) -> str:
        """The name of the units."""
        return self.test.counted

    @property
    def lost(self) -> int:
        """The number of units without a value."""
        return self.finding.lost

    @property
    def parts(self) -> tuple[Part, ...]:
        """The same effect in each cell or series."""
        return self.finding.parts

    @property
    def missing(self) -> tuple[str, ...]:
        """Runs of the study's grid that are missing or were lost."""
        return self.coverage.missing

    @property
    def p_values(self) -> tuple[float, float, float]:
        """The p-values of effect, equivalence and reversal that decide: the corrected ones if they are given."""
        return self.adjusted or self.unadjusted

    @property
    def unadjusted(self) -> tuple[float, float, float]:
        """The p-values of effect, equivalence and reversal before any correction over families."""
        return self.test.p_value, self.test.equivalence_p, self.finding.reversal_p

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`.

        If runs were lost, nothing is decided, because the runs that did not diverge are no fair sample.
        """
        if self.needs:
            return NOT_MEASURED
        return INCONCLUSIVE if self.lost else self.verdict_of_the_rest

    @property
    def verdict_of_the_rest(self) -> str:
        """The verdict that the units at hand would give if none were lost."""
        found = self._verdict_of_the_population
        if self.vacuous and found not in (CONTRADICTED, EQUIVALENT):
            return VACUOUS
        return IN_THESE_CELLS.get(found, found) if self.estimand == THESE else found

    @property
    def _verdict_of_the_population(self) -> str:
        """The verdict by rules that are the same for the cells at hand and for data like these.

        The first rule asks whether the sign depends on the cell, the second whether the pooled effect is too small to
        matter, and the last one its sign. An effect can differ from zero and still be too small to matter. A reversal
        that does not survive the correction over the family still forbids the other verdicts.
        """
        p, equivalence, reversal = self.p_values
        if self.may_reverse:
            return MIXED if reversal < SIGNIFICANCE else INCONCLUSIVE
        if equivalence < SIGNIFICANCE:
            return SUPPORTED if self.predicted == 0 else EQUIVALENT
        if not p < SIGNIFICANCE:
            return INCONCLUSIVE
        sign = 1 if self.estimate > self.null[1] else -1
        return SUPPORTED if sign == self.predicted else CONTRADICTED

    @property
    def seeds_in_cells(self) -> int:
        """The most values that one cell has, one for each seed; 0 if the verdict does not rest on seeds in cells."""
        if (
            self.estimand != THESE
            or self.finding.place != "cells"
            or self.finding.these.counted not in OF_SEEDS
        ):
            return 0
        return max((part.samples for part in self.finding.parts), default=self.finding.these.units)

    @property
    def may_reverse(self) -> bool:
        """Whether two cells have opposite signs, both by more than the margin, before any correction over families."""
        if not self.finding.reversal_p < SIGNIFICANCE:
            return False
        estimates = [part.estimate for part in self.parts]
        least = self.margin if math.isfinite(self.margin) else 0.0
        return min(estimates) <= -least and max(estimates) >= least

    @property
    def deciding_p(self) -> float:
        """The p-value behind the verdict; if undecided, that of the test which could have supported the claim."""
        return self.p_values[self._which_decides]

    @property
    def deciding_test(self) -> str:
        """The test of `deciding_p`."""
        reversal = f"test of opposite signs over {self.finding.place}"
        within = (
            self.test.method if self.test.is_without_spread else "two one-sided t tests against the margin"
        )
        return (self.test.method, within, reversal)[self._which_decides]

    @property
    def deciding_test_in_short(self) -> str:
        """What `deciding_p` is of, where it is not of the effect itself: "within the margin" or "opposite signs"."""
        return ("", WITHIN_THE_MARGIN, OPPOSITE_SIGNS)[self._which_decides]

    @property
    def _which_decides(self) -> int:
        """The index of the deciding p-value among those of effect, equivalence and reversal."""
        if self.may_reverse:
            return 2
        found = self._verdict_of_the_population
        return 1 if found == EQUIVALENT or (self.predicted == 0 and found != CONTRADICTED) else 0


def combined_verdict(verdicts: Sequence[str]) -> str:
    """The verdict of a claim from those of its predictions. One of them can contradict the claim; all must support it.

    If a prediction is not measured, the claim can still be contradicted; otherwise it stays open.
    """
    if all(verdict == NOT_MEASURED for verdict in verdicts):
        return NOT_MEASURED
    for verdict in (CONTRADICTED, CONTRADICTED_HERE):
        if verdict in verdicts:
            return verdict
    if NOT_MEASURED in verdicts:
        return INCONCLUSIVE
    for verdict in (MIXED, EQUIVALENT, EQUIVALENT_HERE, VACUOUS):
        if verdict in verdicts:
            return verdict
    if all(verdict == SUPPORTED for verdict in verdicts):
        return SUPPORTED
    held = all(verdict in (SUPPORTED, SUPPORTED_HERE) for verdict in verdicts)
    return SUPPORTED_HERE if held else INCONCLUSIVE


def corrected(effects: Sequence[Effect]) -> list[Effect]:
    """The effects with corrected p-values (Holm).

    Effects, equivalences and reversals are corrected apart: in a family, the probability of any wrong verdict of one
    kind is at most 5%, and that of any wrong verdict at most 15%. Where one prediction has no effect and another an
    effect in one of two cells alone, 9% of studies have a wrong verdict (`bench/families.py`). Tests that were not
    possible do not count.
    """
    if not effects:
        return []
    p_values = zip(*(effect.unadjusted for effect in effects), strict=True)
    by_kind = [holm(np.array(column, dtype=np.float64)) for column in p_values]
    tests, equivalences, _ = (max(1, int(np.isfinite(column).sum())) for column in by_kind)
    return [
        replace(
            effect,
            adjusted=(float(p), float(equivalence), float(reversal)),
            tests=tests,
            equivalences=equivalences,
        )
        for effect, p, equivalence, reversal in zip(effects, *by_kind, strict=True)
    ]
