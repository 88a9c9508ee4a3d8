"""The quantities of claims: columns of the table of runs, with words, a unit and the smallest difference that matters.

A claim may name any column of the table. The quantities here have words, a unit and a margin, or are computed from
several columns. If a table lacks a column, or the column holds only NaN, the claim says what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.broken_runs import broke
from analysis.objectives import LABEL_WORDS
from analysis.store import AT_LOSS, OWN_COLUMNS, flags_of, is_built_in
from ncsam.probes import GROUPS

MEASURES = ("top_eigenvalue", "trace", "sharpness")
RELATIVE = ("sharpness_elementwise", "sharpness_filter", "relative_flatness")
"""Measures that do not change when layers are rescaled."""
PARTS = {
    "jacobian_trace": "tr J^T J",
    "jacobian_top": "largest eigenvalue of J^T J",
    "uncertainty": "uncertainty of the predictions",
    "gauss_newton_trace": "trace of the Gauss-Newton matrix",
    "functional_norm": "norm of the functional Hessian",
}
"""Columns of the decomposed curvature, in words. Only the last one depends on the labels."""

EQUAL_LOSS = {name: {**PARTS, "sharpness": "sharpness"}[name] for name in AT_LOSS}
"""Quantities that are compared at equal training loss, in words."""
MATCHED_IN = ("pair", "series")
"""The runs of a method that share a level of the training loss: a pair of one seed, or a series of noise rates."""
LEVELS = {"lowest": -1, "highest": 0}
"""Which of the shared levels is taken -> its place among them."""

CONVERGED_SINCE = "0.2"
"""From this version on, a sharpness says whether its ascent converged."""
MUST_SAY = frozenset(f"sharpness_{loss}" for loss in LABEL_WORDS)
"""Columns that need a flag of convergence. Earlier versions took 5 to 10 steps, which did not converge."""


@dataclass(frozen=True)
class Quantity:
    """A number of each run.

    Attributes:
        words: the quantity in words.
        columns: columns of the table from which it is computed.
        unit: unit of the number.
        of: (columns) -> the number. If not given, the number is the first column.
        margin: smallest difference that matters, in the unit; NaN if every difference matters.
        needs: how to get the columns, for tables that lack them.
        never_negative: whether the number is never below zero, so that a prediction of its sign alone cannot fail.
        told_by: columns that hold a number in each run in which the quantity was looked for, if the quantity itself may
            be undefined there, such as what is measured where a run reaches something. If empty, `columns`.
        lower_bound: whether a value that did not converge is a lower bound, which is enough where it is above zero.
            At or below zero it must say that it converged.
    """

    words: str
    columns: tuple[str, ...]
    unit: str = ""
    of: Callable[..., pd.Series] | None = None
    margin: float = np.nan
    needs: str = ""
    never_negative: bool = False
    lower_bound: bool = False
    told_by: tuple[str, ...] = ()

    def values(self, table: pd.DataFrame) -> pd.Series:
        """One number for each run; NaN if it is undefined or did not converge, or if the run diverged or failed."""
        # a mark, such as whether a run has an alarm, is 1 or 0
        columns = [table[name].astype(np.float64) for name in self.columns]
        found = self.of(*columns) if self.of else columns[0]
        hidden = self.unconverged(table) | broke(table)
        return found.mask(hidden) if hidden.any() else found

    def unconverged(self, table: pd.DataFrame) -> pd.Series:
        """Whether each run's number did not converge, or lacks the flag that it needs."""
        found = np.zeros(len(table), dtype=bool)
        for name in self.columns:
            flag = flag_of(table, name).to_numpy()
            # a mean over probes has the mean of their flags, which is below 1 if one of them did not converge
            is_open = flag < 1
            if name in MUST_SAY or self.lower_bound:
                is_open |= np.isnan(flag) & table[name].notna().to_numpy()
            found |= is_open & ~(table[name] > 0).to_numpy() if self.lower_bound else is_open
        return pd.Series(found, index=table.index)

    def lacks(self, table: pd.DataFrame) -> str:
        """What the table lacks for this quantity; empty if it lacks nothing."""
        absent = [name for name in self.columns if name not in table or table[name].isna().all()]
        is_whole = set(self.columns) <= set(table)
        unconverged = self.unconverged(table) if is_whole else pd.Series(False, index=table.index)
        if absent and not unconverged.any():
            # a table that has all columns is of an index by this version
            needs = self.needs.removesuffix(f", and {NEW_INDEX}") if is_whole else self.needs
            return needs or f"the column{'s' if len(absent) > 1 else ''} {', '.join(absent)}"
        silent = [name for name in self.columns if name in MUST_SAY and flag_of(table, name).isna().all()]
        if silent:
            return (
                f"values that converged; {' and '.join(silent)} {'are' if len(silent) > 1 else 'is'} not converged "
                f"(measured before version {CONVERGED_SINCE}): run ncsam measure"
            )
        if not unconverged.any():
            return ""
        there = table[list(self.columns)].notna().all(axis=1)
        if not (there & ~unconverged).any():
            tried = int((there | unconverged).sum())
            return f"values that converged; {int(unconverged.sum())} of {tried} runs not converged"
        return ""


def flag_of(table: pd.DataFrame, column: str) -> pd.Series:
    """Whether a column's values converged: 1, below 1, or NaN if no flag says so."""
    for name in flags_of(column):
        if name in table:
            flag = table[name].astype(np.float64)
            # the search for a critical rate ends at 0, without bounds, where the loss rises at once
            return flag.mask(table[column] == 0, 1.0) if column.startswith("critical_") else flag
    return pd.Series(np.nan, index=table.index)


def studies_without(table: pd.DataFrame, what: Quantity) -> list[Any]:
    """The studies, of several that are judged together, that did not measure a quantity in any run.

    Only whole studies are left out. Within a study, a run, a data set or a kind of noise without values is lost. If no
    study measured the quantity, none is left out. Runs that diverged or failed do not tell what a study measures.
    """
    told = what.told_by or what.columns
    if "study" not in table or table["study"].nunique() < 2 or not set(told) <= set(table):
        return []
    is_there = pd.Series(True, index=table.index)
    for name in told:
        is_there &= flag_of(table, name).notna() | (table[name].notna() if name not in MUST_SAY else False)
    whole = table[~broke(table)]["study"]
    without = [study for study in whole.unique() if not is_there[table["study"] == study].any()]
    return without if len(without) < table["study"].nunique() else []


def quantity(name: str) -> Quantity:
    """The quantity of that name in `QUANTITIES`, or else the column of that name."""
    return QUANTITIES.get(name, Quantity(name.replace("_", " "), (name,)))


def log10(values: pd.Series) -> pd.Series:
    """The decimal logarithm; NaN if there is none."""
    return np.log10(values.where(values > 0))


def log_ratio(first: pd.Series, second: pd.Series) -> pd.Series:
    """The decimal logarithm of a ratio."""
    return log10(first) - log10(second)


def less(first: pd.Series, second: pd.Series) -> pd.Series:
    """A difference."""
    return first - second


DECADES = "decades"
# 0.05 decades are 12%; estimates of curvature vary by about as much between subsets of samples
DECADES_MARGIN = 0.05
POINT = 0.01
COSINE = 0.02

LOSSES_OF_BOUND = {"zero_one": "0-1 loss", "cross_entropy": "clipped cross-entropy"}

REMEASURED = "`ncsam measure`, which measures stored weights again"
ALIGNMENT = "training.alignment_batches above 0"
BOUND = "the bound of Theorem 1 in the run files (measure.bound = true)"
PROBED_PARTS = 'training.probe_epochs, with training.probe_measures = ["loss", "curvature_parts"]'
NEW_INDEX = "an index by this version: `ncsam study` writes it anew, and trains nothing again"
PROBES = f"training.probe_epochs, and {NEW_INDEX}"


def _in_decades(
    words: str, *columns: str, of: Callable[..., pd.Series] | None = log10, needs: str = ""
) -> Quantity:
    """A quantity that is compared by its logarithm."""
    return Quantity(words, columns, DECADES, of=of, margin=DECADES_MARGIN, needs=needs)


def _ratio_in_decades(words: str, column: str, divisor: str, needs: str = "") -> Quantity:
    """The ratio of two columns, compared by its logarithm."""
    return _in_decades(words, column, divisor, of=log_ratio, needs=needs)


def _difference(words: str, column: str, subtracted: str, margin: float, needs: str = "") -> Quantity:
    """One share minus another one."""
    return Quantity(words, (column, subtracted), "share", of=less, margin=margin, needs=needs)


def _share(words: str, column: str, margin: float, needs: str = "") -> Quantity:
    return Quantity(words, (column,), "share", margin=margin, needs=needs, never_negative=True)


def _fall_from_best(words: str, best: str, last: str, margin: float, needs: str = "") -> Quantity:
    """A share in its best epoch minus that in the last one, which is one of the epochs."""
    return replace(_difference(words, best, last, margin, needs), never_negative=True)


def at_equal_loss(name: str, level: str, scope: str) -> str:
    """The column of a quantity at the lowest or highest level of the training loss that a pair or series passes."""
    return f"{name}_at_{level}_equal_loss_in_{scope}"


QUANTITIES: dict[str, Quantity] = {
    "test_accuracy": _share("clean test accuracy, last epoch", "test_accuracy", POINT),
    "best_test_accuracy": _share("clean test accuracy, best epoch", "best_test_accuracy", POINT),
    "late_decay": _fall_from_best(
        "best epoch's clean test accuracy less the last one's",
        "best_test_accuracy",
        "test_accuracy",
        POINT,
    ),
    "memorized": _share("wrong labels memorized", "memorized", 2 * POINT),
    "recovered": _share("true labels of wrongly labeled samples recovered", "recovered", 2 * POINT),
    "best_recovered": _share(
        "true labels of wrongly labeled samples recovered, best epoch", "best_recovered", 2 * POINT, NEW_INDEX
    ),
    "recovered_lost": _fall_from_best(
        "true labels of wrongly labeled samples recovered, best epoch's less the last one's",
        "best_recovered",
        "recovered",
        2 * POINT,
        NEW_INDEX,
    ),
    "clean_noise_cosine": Quantity(
        "cosine of g_clean and g_noise",
        ("mean_cos_clean_noise",),
        "cosine",
        margin=COSINE,
        needs=ALIGNMENT,
    ),
    "sam_clean_cosine": Quantity(
        "cosine of eps_SAM and eps_clean", ("mean_cos_sam_clean",), "cosine", margin=COSINE, needs=ALIGNMENT
    ),
    "gstar_noise_cosine": Quantity(
        "cosine of g* and g_noise", ("mean_cos_gstar_noise",), "cosine", margin=COSINE, needs=ALIGNMENT
    ),
    **{
        f"gain_{side}": Quantity(
            f"cosine with eps_clean gained by {sign}s g* over SAM, same batches",
            (f"mean_cos_{side}_clean", "mean_cos_compensated_sam_clean"),
            "cosine",
            of=less,
            margin=COSINE,
            needs=ALIGNMENT,
        )
        for side, sign in (("plus", "+"), ("minus", "-"))
    },
    "draw_gain": _difference(
        "share of wrong labels among the drawn samples less that among all",
        "mean_draw_precision",
        "realised_noise_rate",
        2 * POINT,
        ALIGNMENT,
    ),
    "temporary_label_gain": Quantity(
        # a random other label of a wrongly labeled sample is the true one once in classes - 1 times
        "share of drawn samples given their true label less that of random labels",
        ("mean_temporary_label_precision", "mean_draw_precision", "classes"),
        "share",
        of=lambda found, wrong, classes: found - wrong / (classes - 1),
        margin=2 * POINT,
        needs=ALIGNMENT,
    ),
    **{
        f"{column}_{loss}": _in_decades(f"{name}, {words}", f"{column}_{loss}", needs=needs)
        for column, name, needs in (
            *((measure, measure.replace("_", " "), "") for measure in MEASURES),
            *((measure, measure.replace("_", " "), REMEASURED) for measure in RELATIVE),
            *((part, name, REMEASURED) for part, name in PARTS.items()),
        )
        for loss, words in LABEL_WORDS.items()
    },
    **{
        f"curvature_of_uncertainty_{loss}": _ratio_in_decades(
            f"trace of the Gauss-Newton matrix to uncertainty, {words}",
            f"gauss_newton_trace_{loss}",
            f"uncertainty_{loss}",
            needs=REMEASURED,
        )
        for loss, words in LABEL_WORDS.items()
    },
    **{
        f"{measure}_clean_to_observed": _ratio_in_decades(
            f"{measure.replace('_', ' ')}, ratio of true to observed labels",
            f"{measure}_clean",
            f"{measure}_observed",
        )
        for measure in MEASURES
    },
    **{
        f"bound_{loss}_{term}": Quantity(
            f"{words}, {name}",
            (f"bound_{loss}_{term}",),
            "",
            needs=BOUND,
            # the maximum that a search finds is a lower bound of the maximum
            lower_bound=term == "slack",
        )
        for loss, name in LOSSES_OF_BOUND.items()
        for term, words in (
            ("slack", "bound less clean test loss"),
            ("right", "bound of Theorem 1"),
            ("empirical", "empirical term of the bound"),
            ("sampling", "sampling term of the bound"),
            ("complexity", "complexity term of the bound"),
        )
    },
    **{
        f"bound_{loss}_excess": Quantity(
            f"bound less 1, above which it says nothing, {name}",
            (f"bound_{loss}_right",),
            "",
            of=lambda right: right - 1,
            needs=BOUND,
            lower_bound=True,
        )
        for loss, name in LOSSES_OF_BOUND.items()
    },
    **{
        f"assumption_{loss}_gap": Quantity(
            f"test loss under Gaussian perturbation less without, {name}",
            (f"assumption_{loss}_gap",),
            "",
            margin=POINT / 10,
            needs=BOUND,
        )
        for loss, name in LOSSES_OF_BOUND.items()
    },
    **{
        column: replace(
            _in_decades(
                f"{words} at the {level} equal training loss, observed labels", column, needs=PROBED_PARTS
            ),
            told_by=(f"mean_probe_{name}_observed",),
        )
        for name, words in EQUAL_LOSS.items()
        for level in LEVELS
        for scope in MATCHED_IN
        for column in [at_equal_loss(name, level, scope)]
    },
    **{
        f"damping_{group}": _in_decades(
            f"norm of the gradient at w + eps to that at w, {words}",
            f"mean_probe_damping_{group}",
            of=None,
            needs=PROBES,
        )
        for group, words in GROUPS.items()
    },
    "damping_contrast": _in_decades(
        "norm of the gradient at w + eps to that at w, ambiguous to confident samples",
        "mean_probe_damping_ambiguous",
        "mean_probe_damping_confident",
        of=less,
        needs=PROBES,
    ),
    "perturbation_norm": _in_decades(
        "norm of the perturbation, mean over training",
        "mean_perturbation_norm",
        needs="a study run by a version that records the perturbation's norm",
    ),
    "train_loss": Quantity("training loss", ("train_loss",), "nat", never_negative=True),
}
"""Name -> quantity. `mean_probe_...` is the mean of a probe (`ncsam.probes`) over the probed epochs in which it is
defined. The mean of a perturbation is that over epochs with a perturbation."""


def register_quantity(name: str, found: Quantity) -> Quantity:
    """Adds a quantity with its words, unit and margin.

    Raises:
        ValueError: the name is taken, or is that of a column that is no part of the quantity.
    """
    if name in QUANTITIES:
        raise ValueError(f"name: the quantity {name!r} is registered already; choose another")
    if is_built_in(name) and name not in found.columns:
        raise ValueError(
            f"name: the quantity {name!r} would hide the column of this name, which ncsam fills; choose another"
        )
    QUANTITIES[name] = found
    return found


def check_own_columns() -> None:
    """Raises ValueError if a quantity hides a column of the user's measures: a claim would judge another number."""
    for column, measure in OWN_COLUMNS.items():
        if column in QUANTITIES and column not in QUANTITIES[column].columns:
            raise ValueError(
                f"--with: the column {column!r} of the measure {measure!r} is named like the quantity {column!r} "
                f"({QUANTITIES[column].words}), which a claim would take in its place; rename the column"
            )
