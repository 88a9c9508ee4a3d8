"""One measured prediction with all that decides it, and the rules by which it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SIGNIFICANCE = 0.05

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
EQUIVALENT = "equivalent"
MIXED = "mixed"
INCONCLUSIVE = "inconclusive"
NOT_MEASURED = "not measured"

VERDICTS = {
    SUPPORTED: "the effect has the predicted sign",
    CONTRADICTED: "the effect has the opposite sign",
    EQUIVALENT: "the effect is smaller than the margin below which it does not matter",
    MIXED: "the sign depends on the noise rate, or what should hold in every run does not hold in some",
    INCONCLUSIVE: "the data allow either sign",
    NOT_MEASURED: "the runs or measurements that it needs are not there",
}
"""Verdict -> what it means for a prediction."""


@dataclass(frozen=True)
class Part:
    """An effect at one noise rate: too few units for a verdict, enough to see a reversal.

    Attributes:
        name: where.
        estimate: of the effect.
        low: lower end of the 95% t interval; NaN for fewer than two units.
        high: upper end.
        samples: how many units.
    """

    name: str
    estimate: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True)
class Effect:
    """One measured prediction.

    Attributes:
        name: what was compared.
        predicted: +1 or -1, the sign that the claim predicts, or 0: that there is no difference.
        estimate: of the effect; NaN if nothing could be compared.
        low: lower end of the 95% bootstrap interval.
        high: upper end.
        p_value: of the null hypothesis of no effect, two-sided, or, where none is predicted, of one within the margin;
            NaN where no test was possible.
        test: which test gave the p-value.
        samples: how many independent units entered.
        counted: what the units are: `"pairs"`, `"runs"` or `"methods"`.
        unit: of the estimate.
        lost: how many units could not enter, because a run diverged or was not measured.
        margin: effects smaller than that do not matter; NaN if nothing is too small to matter.
        equivalence_p: of the null hypothesis that the effect is at least as large as the margin.
        reversal_p: of the null hypothesis that the effect is the same in all parts.
        spread: standard deviation of one unit: spread / sqrt(samples) is the standard error of the estimate.
        smallest_p: the smallest p-value that the test can give with so many units.
        parts: the same effect at each noise rate.
        violations: units in which what should hold everywhere does not.
        missing: runs of the study's grid that are not there, or were lost.
        needs: what would have to be run or measured; empty if it is there.
        tests: hypotheses that share the error rate with this one.
        adjusted: the p-values (effect, equivalence, reversal) after Holm's correction over the family; they
            decide where they are given.
    """

    name: str
    predicted: int
    estimate: float
    low: float
    high: float
    p_value: float
    test: str
    samples: int
    counted: str
    unit: str
    lost: int = 0
    margin: float = math.nan
    equivalence_p: float = math.nan
    reversal_p: float = math.nan
    spread: float = math.nan
    smallest_p: float = 0.0
    parts: tuple[Part, ...] = ()
    violations: int = 0
    missing: tuple[str, ...] = ()
    needs: str = ""
    tests: int = 1
    adjusted: tuple[float, float, float] | None = None

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`.

        Never decided with losses: what is left after runs diverged is a choice of the fittest.
        """
        if self.needs:
            return NOT_MEASURED
        return INCONCLUSIVE if self.lost else self.verdict_of_the_rest

    @property
    def verdict_of_the_rest(self) -> str:
        """The verdict that the units which are there would give if they were all.

        A sign needs both the interval and the test to exclude no effect; where none is predicted, an effect within the
        margin. A sign that depends on the noise rate comes before a pooled effect of about zero, and that before a
        sign: an effect can differ from zero and still be too small to matter.
        """
        p, equivalence, reversal = self.adjusted or (self.p_value, self.equivalence_p, self.reversal_p)
        null = self.margin if self.predicted == 0 and math.isfinite(self.margin) else 0.0
        decided = (self.low > null or self.high < -null) and p < SIGNIFICANCE
        equivalent = equivalence < SIGNIFICANCE
        if self.reverses and reversal < SIGNIFICANCE:
            return MIXED
        if self.predicted == 0:
            return SUPPORTED if equivalent else CONTRADICTED if decided else INCONCLUSIVE
        if equivalent:
            return EQUIVALENT
        if not decided:
            return INCONCLUSIVE
        if math.copysign(1, self.estimate) != self.predicted:
            return CONTRADICTED
        return MIXED if self.violations else SUPPORTED

    @property
    def reverses(self) -> bool:
        """The intervals of two parts exclude zero on opposite sides, and not all parts are too small to matter."""
        opposed = any(part.low > 0 for part in self.parts) and any(part.high < 0 for part in self.parts)
        return opposed and not all(abs(part.estimate) < self.margin for part in self.parts)


def combined_verdict(verdicts: Sequence[str]) -> str:
    """Of a claim with several predictions: it falls with one, and is supported only if all are."""
    for verdict in (CONTRADICTED, MIXED, EQUIVALENT):
        if verdict in verdicts:
            return verdict
    if all(verdict == NOT_MEASURED for verdict in verdicts):
        return NOT_MEASURED
    return SUPPORTED if all(verdict == SUPPORTED for verdict in verdicts) else INCONCLUSIVE


def not_measured(name: str, predicted: int, unit: str, needs: str) -> Effect:
    """A prediction whose runs or measurements are not there."""
    nothing = math.nan
    return Effect(name, predicted, nothing, nothing, nothing, nothing, "none", 0, "runs", unit, needs=needs)
