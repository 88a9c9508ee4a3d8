"""A measured prediction: what decides it, and the one place where a sign, a margin and a verdict are judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from analysis.claims.coverage import Coverage
from analysis.statistics import FEWEST_CELLS, THESE, Finding, Part, Test, holm, nothing_found

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

IN_THESE_CELLS = {
    SUPPORTED: SUPPORTED_HERE,
    CONTRADICTED: CONTRADICTED_HERE,
    EQUIVALENT: EQUIVALENT_HERE,
}
"""The verdict about cells like these -> the same about the cells at hand only."""

VERDICTS = {
    SUPPORTED: "the effect has the predicted sign in cells like these",
    CONTRADICTED: "the effect has the opposite sign in cells like these",
    EQUIVALENT: "the effect in cells like these is smaller than the margin below which it does not matter",
    SUPPORTED_HERE: f"the same of the cells at hand: fewer than {FEWEST_CELLS} cells say nothing of others",
    CONTRADICTED_HERE: "the effect has the opposite sign in the cells at hand",
    EQUIVALENT_HERE: "the effect in the cells at hand is smaller than the margin",
    MIXED: "the sign depends on the cell",
    VACUOUS: "it cannot fail: every bound is above the largest value that the loss can have",
    INCONCLUSIVE: "the data allow either sign",
    NOT_MEASURED: "the runs or measurements that it needs are not there",
}
"""Verdict -> what it means for a prediction."""


@dataclass(frozen=True)
class Effect:
    """One measured prediction.

    Attributes:
        name: what was compared.
        predicted: +1 or -1, the sign that the claim predicts, or 0: that there is no difference.
        unit: of the estimate.
        finding: what the data say; without places where nothing was measured.
        margin: the smallest effect that matters; NaN if every effect does.
        null: the null hypothesis: values of the effect from the first to the second.
        coverage: which runs are not there, or did not converge.
        needs: what would have to be run or measured; empty if it is there.
        vacuous: the prediction could not fail in any of these runs.
        tests: hypotheses that share the error rate with this one.
        adjusted: the p-values (effect, equivalence, reversal) after Holm's correction over the family; they decide
            where they are given.
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
    tests: int = 1
    adjusted: tuple[float, float, float] | None = None

    @property
    def test(self) -> Test:
        """The test that decides."""
        return self.finding.deciding

    @property
    def estimand(self) -> str:
        """What the effect is a property of: `THESE` or `LIKE_THESE`."""
        return self.test.estimand

    @property
    def estimate(self) -> float:
        """The effect; NaN if nothing could be compared."""
        return self.test.estimate

    @property
    def low(self) -> float:
        """Lower end of the 95% interval."""
        return self.test.low

    @property
    def high(self) -> float:
        """Upper end of the 95% interval."""
        return self.test.high

    @property
    def samples(self) -> int:
        """How many independent units entered."""
        return self.test.units

    @property
    def counted(self) -> str:
        """What the units are."""
        return self.test.counted

    @property
    def lost(self) -> int:
        """How many units have no number."""
        return self.finding.lost

    @property
    def parts(self) -> tuple[Part, ...]:
        """The same effect in each cell or series."""
        return self.finding.parts

    @property
    def missing(self) -> tuple[str, ...]:
        """Runs of the study's grid that are not there, or were lost."""
        return self.coverage.missing

    @property
    def p_values(self) -> tuple[float, float, float]:
        """The p-values of effect, equivalence and reversal that decide: the corrected ones where there are such."""
        return self.adjusted or self._unadjusted

    @property
    def _unadjusted(self) -> tuple[float, float, float]:
        return self.test.p_value, self.test.equivalence_p, self.finding.reversal_p

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`.

        Never decided where runs are lost: those that did not diverge are no fair sample.
        """
        if self.needs:
            return NOT_MEASURED
        return INCONCLUSIVE if self.lost else self.verdict_of_the_rest

    @property
    def verdict_of_the_rest(self) -> str:
        """The verdict that the units at hand would give if none were lost."""
        found = self._verdict_of_the_population
        if self.vacuous and found != CONTRADICTED:
            return VACUOUS
        return IN_THESE_CELLS.get(found, found) if self.estimand == THESE else found

    @property
    def _verdict_of_the_population(self) -> str:
        """The rules of the verdict, which are the same for the cells at hand and for cells like these.

        First: does the sign depend on the cell? Then: is the pooled effect too small to matter? Last: its sign. An
        effect can differ from zero and still be too small to matter. A reversal that does not survive the correction
        over the family still forbids the other verdicts.
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
    def may_reverse(self) -> bool:
        """Two cells have opposite signs, before any correction over the family, and both by more than the margin."""
        if not self.finding.reversal_p < SIGNIFICANCE:
            return False
        estimates = [part.estimate for part in self.parts]
        least = self.margin if math.isfinite(self.margin) else 0.0
        return min(estimates) <= -least and max(estimates) >= least

    @property
    def deciding_p(self) -> float:
        """The p-value of the verdict; without a verdict, that of the test which could have supported the claim."""
        return self.p_values[self._which_decides]

    @property
    def deciding_test(self) -> str:
        """The test of `deciding_p`."""
        reversal = f"test of opposite signs over {self.finding.place}"
        return (self.test.method, "two one-sided t tests against the margin", reversal)[self._which_decides]

    @property
    def _which_decides(self) -> int:
        """The index of the deciding p-value among those of effect, equivalence and reversal."""
        if self.may_reverse:
            return 2
        found = self._verdict_of_the_population
        return 1 if found == EQUIVALENT or (self.predicted == 0 and found != CONTRADICTED) else 0


def combined_verdict(verdicts: Sequence[str]) -> str:
    """The verdict of a claim from those of its predictions. One of them can contradict the claim; all must support it.

    Where a prediction is not measured, the claim can be contradicted or stays open.
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
    """The effects with corrected p-values: any wrong verdict in the whole family has a probability of 5% at most.

    Effects, equivalences and reversals are corrected apart (Holm), because only verdicts of one kind can be wrong where
    one kind of null hypothesis is true. Tests that were not possible do not count.
    """
    p_values = [(e.test.p_value, e.test.equivalence_p, e.finding.reversal_p) for e in effects]
    by_kind = [holm(np.array(column, dtype=np.float64)) for column in zip(*p_values, strict=True)]
    tests = int(np.isfinite([p for p, _, _ in p_values]).sum())
    return [
        replace(effect, adjusted=(float(p), float(equivalence), float(reversal)), tests=max(1, tests))
        for effect, p, equivalence, reversal in zip(effects, *by_kind, strict=True)
    ]
