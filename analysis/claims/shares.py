"""Predictions that hold in every run, with exceptions for a share of the draws of data."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.claims.coverage import coverage_of_all
from analysis.claims.effect import Effect
from analysis.claims.prediction import draws_of, effect_of, joined, lacking, not_measured
from analysis.claims.quantities import quantity
from analysis.claims.variants import CELL
from analysis.statistics import failing_share


@dataclass(frozen=True)
class Holds:
    """A quantity is above zero in every run at every noise rate, 0 included, except for a share of the draws of data.

    Attributes:
        quantity: the quantity, such as a bound minus the number that it bounds. A failure whose value did not converge
            is open, and its run is lost.
        exceptions: the share of draws that may fail.
        vacuous: another quantity. If it is above zero in every run, the prediction cannot fail.
    """

    quantity: str
    exceptions: float
    vacuous: str = ""

    @property
    def sign(self) -> int:
        """-1: the share of failures minus the allowed share is negative."""
        return -1

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        return f"{quantity(self.quantity).words} > 0, but for at most {self.exceptions:.0%} of draws"

    def runs(self) -> str:
        """The runs that it needs."""
        return "any method"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The share of failing runs, averaged over draws of data and labels."""
        what = quantity(self.quantity)
        needs = lacking(table, table, [what])
        if needs:
            return not_measured(self, "share of runs", needs)
        values = what.values(table)
        above = quantity(self.vacuous).values(table) > 0 if self.vacuous else pd.Series([False])
        return effect_of(
            self,
            unit="share of runs",
            finding=failing_share(
                draws_of(table),
                joined(table, CELL),
                (values <= 0).where(values.notna()),
                allowed=self.exceptions,
            ),
            null=(self.exceptions, self.exceptions),
            coverage=coverage_of_all(table, [what]),
            vacuous=bool(above.all()),
        )
