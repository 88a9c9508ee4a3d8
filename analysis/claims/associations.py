"""Predictions about the association of two quantities over methods."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from analysis.claims.coverage import coverage_of_all
from analysis.claims.differences import check_margin
from analysis.claims.effect import Effect
from analysis.claims.prediction import (
    SIGNS,
    cell_names,
    draws_of,
    effect_of,
    lacking,
    noisy_runs,
    not_measured,
)
from analysis.claims.quantities import quantity
from analysis.claims.variants import (
    UNCHANGED,
    changes,
    distinct_methods,
    family_of,
    hyperparameters_of,
)
from analysis.statistics import conditional_information, rank_association

TAU = "Kendall's tau"
PARTIAL = "Spearman's rho, partial"
SHARE = "share of entropy"


@dataclass(frozen=True)
class Association:
    """The rank correlation of two quantities over families of methods, within data set and noise.

    Attributes:
        quantity: one of the two quantities.
        outcome: the other quantity.
        sign: predicted sign of the correlation.
        given: a third quantity that is held fixed. The correlation is then a partial one.
    """

    quantity: str
    outcome: str
    sign: int
    given: str | None = None

    def __post_init__(self) -> None:
        check_margin(self.sign, math.nan, "correlations have none: predict a sign, 1 or -1")

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        words, outcome = quantity(self.quantity).words, quantity(self.outcome).words
        given = f", given {quantity(self.given).words}" if self.given else ""
        return f"{words} with {outcome} over methods, within noise rate{given} {SIGNS[self.sign]}"

    def runs(self) -> str:
        """The runs that it needs."""
        enough = "seven" if self.given else "five"
        return f"four or more families of methods ({enough} for a verdict) at each noise rate above 0"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean rank correlation over cells."""
        names = [self.quantity, self.outcome, *([self.given] if self.given else [])]
        quantities = [quantity(name) for name in names]
        unit = PARTIAL if self.given else TAU
        noisy = _comparable(table)
        needs = lacking(table, noisy, quantities)
        if needs:
            return not_measured(self, unit, needs)
        noisy, left_out = distinct_methods(noisy, [what.values(noisy) for what in quantities])
        values = [what.values(noisy) for what in quantities]
        return effect_of(
            self,
            unit=unit,
            limits=(-1.0, 1.0),
            finding=rank_association(
                cell_names(noisy),
                noisy["method"],
                family_of(noisy),
                values[0],
                values[1],
                given=values[2] if self.given else None,
                data_sets=noisy["dataset"],
                draws=draws_of(noisy),
            ),
            coverage=coverage_of_all(noisy, quantities),
            note=_of_twins(left_out),
        )


@dataclass(frozen=True)
class Information:
    """How much a quantity tells about the order of methods in another quantity, within data set and noise.

    Hyper-parameters are held fixed, so that a quantity which only follows a hyper-parameter tells nothing.

    Attributes:
        quantity: the quantity that tells.
        outcome: the quantity of which it tells.
        sign: 1, as information has no other sign.
    """

    quantity: str
    outcome: str
    sign: int = 1

    def __post_init__(self) -> None:
        if self.sign != 1:
            raise ValueError(
                f"sign: information is not negative; predict that there is some, 1, not {self.sign}"
            )

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        words, outcome = quantity(self.quantity).words, quantity(self.outcome).words
        given = "within noise rate, whatever hyper-parameters are given"
        return f"what {words} tells of {outcome} {given} {SIGNS[self.sign]}"

    def runs(self) -> str:
        """The runs that it needs."""
        return (
            "four or more methods at each noise rate above 0, several of them with the same hyper-parameter"
        )

    def effect(self, table: pd.DataFrame) -> Effect:
        """The smallest normalized conditional mutual information, minus the information by chance."""
        quantities = [quantity(self.quantity), quantity(self.outcome)]
        noisy = _comparable(table)
        needs = lacking(table, noisy, quantities)
        if needs:
            return not_measured(self, SHARE, needs)
        noisy, left_out = distinct_methods(noisy, [what.values(noisy) for what in quantities])
        x, y = (what.values(noisy) for what in quantities)
        return effect_of(
            self,
            unit=SHARE,
            limits=(-1.0, 1.0),
            finding=conditional_information(
                cell_names(noisy), noisy["method"], x, y, hyperparameters_of(noisy)
            ),
            coverage=coverage_of_all(noisy, quantities),
            note=_of_twins(left_out),
        )


def _of_twins(left_out: list[str]) -> str:
    """A sentence on the methods that are left out because their runs are other methods' too."""
    are = "is" if len(left_out) == 1 else "are"
    return (
        f"{', '.join(left_out)} {are} left out: all runs are other methods' too, to the bit."
        if left_out
        else ""
    )


def _comparable(table: pd.DataFrame) -> pd.DataFrame:
    """The runs with wrong labels that a comparison over methods may use: those with one training loss, and architecture
    and training of their study.
    """
    noisy = noisy_runs(table)
    noisy = noisy[changes(noisy) == UNCHANGED]
    unchanged = (noisy["mixup"] == 0) & (noisy["label_smoothing"] == 0)
    return noisy[(noisy["loss"] == "cross-entropy") & unchanged]
