"""Predictions about a difference between two methods, or about the sign of a quantity itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.claims.coverage import Coverage, coverage, coverage_of_all
from analysis.claims.effect import Effect
from analysis.claims.limits import limits_of, limits_of_difference
from analysis.claims.prediction import (
    CLEAN,
    NEEDS_CLEAN,
    SIGNS,
    Prediction,
    effect_of,
    effect_over_cells,
    lacking,
    noisy_runs,
    not_measured,
)
from analysis.claims.quantities import Quantity, quantity
from analysis.claims.variants import (
    PAIRED_BY,
    UNCHANGED,
    Variant,
    changes,
    select,
    select_both,
    unequal_choices,
)


def null_of(sign: int, margin: float) -> tuple[float, float]:
    """The effects that the null hypothesis allows: 0, or if no difference is predicted, those within the margin."""
    return (-margin, margin) if sign == 0 and math.isfinite(margin) else (0.0, 0.0)


def check_margin(sign: int, margin: float, remedy: str) -> None:
    """Refuses a prediction that no data could support: one of another sign than 1, 0 or -1, or one of no difference, or
    of none beyond a margin, without a margin.

    Args:
        sign: the predicted sign; 0 where the prediction needs a margin.
        margin: the smallest difference that matters; NaN for none.
        remedy: how to give a margin.

    Raises:
        ValueError: there is no such sign, or no margin.
    """
    if sign not in SIGNS:
        raise ValueError(f"sign: must be 1, -1 or 0, got {sign}")
    if sign == 0 and not math.isfinite(margin):
        raise ValueError(
            f"margin: a prediction of no difference, or of none beyond a margin, needs one; {remedy}"
        )


def check_margin_of(name: str, sign: int, *, non_inferior: bool = False) -> None:
    """As `check_margin`, for the margin of the quantity of this name."""
    remedy = f"before the claim call register_quantity(NAME, Quantity(WORDS, ({name!r},), margin=...)), and name that"
    check_margin(sign, quantity(name).margin, remedy)
    if non_inferior:
        if sign == 0:
            raise ValueError("sign: a quantity is not inferior on one side, 1 or -1, got 0")
        check_margin(0, quantity(name).margin, remedy)


def pairs_of(what: Quantity, more: pd.DataFrame, less: pd.DataFrame) -> pd.DataFrame:
    """The quantity in pairs of runs that agree in data set, noise and seed. Columns: `PAIRED_BY`, `more` and `less`."""
    first, second = (
        more[PAIRED_BY].assign(more=what.values(more)),
        less[PAIRED_BY].assign(less=what.values(less)),
    )
    return first.merge(second, on=PAIRED_BY)


@dataclass(frozen=True)
class Side:
    """The runs on one side of a paired difference.

    Attributes:
        title: the side in words.
        method: the method of the runs.
        runs: the runs.
        grid: the method should have one run in each cell and seed of these runs.
    """

    title: str
    method: Variant
    runs: pd.DataFrame
    grid: pd.DataFrame


def paired_difference(
    prediction: Prediction,
    what: Quantity,
    table: pd.DataFrame,
    more: Side,
    less: Side,
    *,
    unpaired: str = "",
    draw: Sequence[str] = PAIRED_BY,
) -> Effect:
    """The mean over cells of the mean difference of two sides in each cell.

    Args:
        prediction: the prediction about the difference.
        what: the quantity of which the difference is taken.
        table: all runs.
        more: the side from which the other one is subtracted.
        less: the other side.
        unpaired: what a prediction without any pair of runs needs. If empty, such a prediction is open, and its runs
            without partner are named as missing.
        draw: the columns that name a pair's random draws, see `draws_of`.
    """
    grid = pd.concat([more.grid, less.grid])
    needs = lacking(table, grid, [what], (more.method, more.runs), (less.method, less.runs))
    if needs:
        are_run = not more.runs.empty and not less.runs.empty
        return not_measured(prediction, what.unit, needs if are_run or not unpaired else unpaired)
    pairs = pairs_of(what, more.runs, less.runs)
    if pairs.empty and unpaired:
        return not_measured(prediction, what.unit, unpaired)
    null = null_of(prediction.sign, what.margin)
    return effect_of(
        prediction,
        unit=what.unit,
        finding=effect_over_cells(
            pairs, pairs["more"] - pairs["less"], draw=draw, null=null, margin=what.margin
        ),
        margin=what.margin,
        null=null,
        coverage=sum(
            (coverage(side.grid, side.runs, side.title, [what]) for side in (more, less)), Coverage()
        ),
        limits=limits_of_difference(what),
        note=unequal_choices(more.runs, less.runs, (more.title, less.title)),
    )


@dataclass(frozen=True)
class Difference:
    """A quantity of one method minus that of another, in runs with wrong labels, paired by data set, noise and seed.

    The effect is the mean over cells of the mean difference in each cell. A test looks for differences of opposite
    signs between cells.

    Attributes:
        clean: whether the runs are those without wrong labels instead.
    """

    quantity: str
    more: Variant
    less: Variant
    sign: int
    clean: bool = False

    def __post_init__(self) -> None:
        check_margin_of(self.quantity, self.sign)

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        where = CLEAN if self.clean else ""
        return f"{quantity(self.quantity).words}{where}: {self.more.title} less {self.less.title} {SIGNS[self.sign]}"

    def runs(self) -> str:
        """The runs that it needs."""
        labels = (
            "without wrong labels, with the same seeds"
            if self.clean
            else "with the same wrong labels and seeds"
        )
        return f"{self.more.title} and {self.less.title} {labels}"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean of the paired differences."""
        what = quantity(self.quantity)
        noisy = noisy_runs(table, clean=self.clean)
        if self.clean and noisy.empty:
            return not_measured(self, what.unit, NEEDS_CLEAN)
        runs = select_both(noisy, self.more, self.less)
        more, less = (
            Side(method.title, method, found, grid=noisy)
            for method, found in zip((self.more, self.less), runs, strict=True)
        )
        return paired_difference(self, what, table, more, less)


@dataclass(frozen=True)
class Level:
    """The sign of a quantity itself, in the runs of one method, or of all methods, with wrong labels.

    Attributes:
        method: method of the runs. None: the mean over all methods for each data set, noise and seed.
        non_inferior: whether the quantity may lie on the other side of zero by less than its margin.
        clean: whether the runs are those without wrong labels instead.
    """

    quantity: str
    method: Variant | None
    sign: int
    non_inferior: bool = False
    clean: bool = False

    def __post_init__(self) -> None:
        check_margin_of(self.quantity, self.sign, non_inferior=self.non_inferior)

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        what = quantity(self.quantity)
        where = f", {self.method.title}{CLEAN if self.clean else ''}" if self.method else ""
        bound = (
            f"{SIGNS[self.sign][0]} {-self.sign * what.margin:g}" if self.non_inferior else SIGNS[self.sign]
        )
        return f"{what.words}{where} {bound}"

    def runs(self) -> str:
        """The runs that it needs."""
        return f"{self.method.title if self.method else 'any method'} with{'out' if self.clean else ''} wrong labels"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean over cells of the mean over seeds in each cell."""
        what = quantity(self.quantity)
        noisy = noisy_runs(table, clean=self.clean)
        if self.clean and noisy.empty:
            return not_measured(self, what.unit, NEEDS_CLEAN)
        runs = noisy[changes(noisy) == UNCHANGED] if self.method is None else select(noisy, self.method)
        needs = lacking(table, noisy, [what], *([(self.method, runs)] if self.method else []))
        needs = needs or what.lacks(runs)
        if needs:
            return not_measured(self, what.unit, needs)
        found = runs[PAIRED_BY].assign(value=what.values(runs))
        # a run that diverged makes the mean of its seed NaN
        seeds = found.groupby(PAIRED_BY)["value"].agg(lambda values: values.mean(skipna=False)).reset_index()
        edge = -self.sign * what.margin
        null = (edge, edge) if self.non_inferior else null_of(self.sign, what.margin)
        covered = (
            coverage(noisy, runs, self.method.title, [what]) if self.method else coverage_of_all(runs, [what])
        )
        return effect_of(
            self,
            unit=what.unit,
            finding=effect_over_cells(
                seeds,
                seeds["value"],
                null=null,
                margin=math.nan if self.non_inferior else what.margin,
                counted="seeds in cells",
            ),
            margin=what.margin,
            null=null,
            coverage=covered,
            vacuous=what.never_negative and self.sign == 1 and not self.non_inferior,
            limits=limits_of(what),
        )
