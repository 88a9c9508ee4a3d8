"""E11: how the difference between two methods changes with the width of the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.claims.claim import Claim
from analysis.claims.coverage import Coverage, coverage
from analysis.claims.differences import check_margin_of, null_of, pairs_of
from analysis.claims.effect import Effect
from analysis.claims.prediction import (
    CLEAN,
    SIGNS,
    effect_of,
    effect_over_cells,
    noisy_runs,
    not_measured,
)
from analysis.claims.quantities import Quantity, quantity
from analysis.claims.variants import PAIRED_BY, SAM, SGD, UNCHANGED, Variant, changes, select_both
from analysis.statistics import slope_of

SIZE = "weight_count"
"""The column that says how large a network is."""


@dataclass(frozen=True)
class Widening:
    """The slope, against the size of the network, of the paired difference between two methods.

    Networks of one architecture differ in the options of `[methods.model]`. Each seed in each cell has one slope, over
    the decimal logarithm of the number of entries of the weight matrices.

    Attributes:
        less: the method whose quantity is subtracted. None: the quantity of `more` itself.
        clean: whether the runs are those without wrong labels.
    """

    quantity: str
    more: Variant
    less: Variant | None
    sign: int
    clean: bool = False

    def __post_init__(self) -> None:
        check_margin_of(self.quantity, self.sign)

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        title = f"{self.more.title} less {self.less.title}" if self.less else self.more.title
        where = CLEAN if self.clean else ""
        return f"{quantity(self.quantity).words}{where}: {title} against width {SIGNS[self.sign]}"

    def runs(self) -> str:
        """The runs that it needs."""
        titles = f"{self.more.title} and {self.less.title}" if self.less else self.more.title
        return f"{titles} with two or more sizes of one architecture (model, of a method), other things equal"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean over cells of the mean slope of seeds."""
        what = quantity(self.quantity)
        unit = f"{what.unit} per decade of weights".strip()
        chosen = _sized(noisy_runs(table, clean=self.clean))
        lacks = self.runs() if chosen.empty else what.lacks(chosen)
        if lacks:
            return not_measured(self, unit, lacks)
        by_size = [self._at_size(of_size, what) for _, of_size in chosen.groupby(SIZE)]
        points = pd.concat([found for found, _ in by_size])
        points = points[points.groupby(PAIRED_BY)["size"].transform("nunique") > 1]
        if points.empty:
            return not_measured(self, unit, self.runs())
        slopes = points.groupby(PAIRED_BY)[["size", "value"]].apply(
            lambda of_seed: slope_of(of_seed["size"].to_numpy(), of_seed["value"].to_numpy())
        )
        by_seed = slopes.rename("slope").reset_index()
        null = null_of(self.sign, what.margin)
        return effect_of(
            self,
            unit=unit,
            finding=effect_over_cells(
                by_seed,
                by_seed["slope"],
                null=null,
                margin=what.margin,
                counted="slopes of seeds",
            ),
            margin=what.margin,
            null=null,
            coverage=sum((covered for _, covered in by_size), Coverage()),
        )

    def _at_size(self, runs: pd.DataFrame, what: Quantity) -> tuple[pd.DataFrame, Coverage]:
        """The decimal logarithm of the size, and the difference of each pair at this size; and the runs behind them."""
        # within one size, the study's own width and the others are alike
        alike = runs.assign(changed=UNCHANGED)
        methods = [self.more, *([self.less] if self.less else [])]
        found = select_both(alike, self.more, self.less or self.more)[: len(methods)]
        size = runs[SIZE].iloc[0]
        covered = sum(
            (
                coverage(alike, of_method, f"{method.title} of {size:,.0f} weights", [what])
                for method, of_method in zip(methods, found, strict=True)
            ),
            Coverage(),
        )
        if self.less:
            pairs = pairs_of(what, *found)
            values = pairs.assign(value=pairs["more"] - pairs["less"])
        else:
            values = found[0][PAIRED_BY].assign(value=what.values(found[0]))
        return values.assign(size=np.log10(size)), covered


def _sized(table: pd.DataFrame) -> pd.DataFrame:
    """The runs that differ from their study in no more than the options of the architecture."""
    if SIZE not in table:
        return table.iloc[:0]
    names = changes(table).str.findall(r'"([^"]*)"')
    are_of_model = names.map(lambda changed: all(name.startswith("model.") for name in changed))
    return table[are_of_model.astype(bool) & (table[SIZE] > 0)]


CLAIMS = (
    Claim(
        "E11",
        "SAM gains more over SGD the wider the network is, and flattens it more.",
        "Shin et al. 2025 (arXiv:2311.17539), who find it pronounced under label noise",
        [
            Widening("test_accuracy", SAM, SGD, 1),
            Widening("top_eigenvalue_observed", SAM, SGD, -1),
        ],
        controls=[
            # is it the noise? does the gain grow at the best epoch too?
            Widening("test_accuracy", SAM, SGD, 1, clean=True),
            Widening("best_test_accuracy", SAM, SGD, 1),
            Widening("memorized", SAM, SGD, -1),
            Widening("sharpness_observed", SAM, SGD, -1),
            Widening("jacobian_trace_observed", SAM, SGD, -1),
            # which of the two changes?
            *(Widening("test_accuracy", method, None, 1) for method in (SGD, SAM)),
            *(Widening("top_eigenvalue_observed", method, None, -1) for method in (SGD, SAM)),
        ],
    ),
)
