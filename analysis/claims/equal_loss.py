"""Quantities of several runs at the same training loss.

Runs with more noise end at a higher training loss, and redrawn labels cannot be memorized. So a comparison at the end
of training mixes two causes: the labels, and the progress of the training.
"""

from __future__ import annotations

import math

import pandas as pd

from analysis.claims.quantities import EQUAL_LOSS, LEVELS, at_equal_loss
from analysis.claims.variants import REDRAWN
from analysis.store import LOSS_LEVELS, column_at_loss


def with_equal_loss(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns of `EQUAL_LOSS`: each quantity at a level of the training loss that runs share.

    The shared levels are those that all compared runs pass: a method's runs of one seed with fixed and with redrawn
    labels, or all its runs in a series of noise rates. The lowest and the highest of them are taken. Runs that diverged
    do not count. The table stays as it is if no run was probed along its training.
    """
    columns: dict[str, pd.Series] = {}
    kind = table["noise_kind"].str.removesuffix(REDRAWN)
    compared = {
        "pair": [table["dataset"], kind, table["noise_rate"], table["method"], table["seed"]],
        "series": [table["dataset"], table["noise_kind"], table["method"]],
    }
    for name in EQUAL_LOSS:
        passed = [column for level in LOSS_LEVELS if (column := column_at_loss(name, level)) in table]
        if not passed:
            continue
        for scope, keys in compared.items():
            groups = [_at_shared_levels(runs[passed], runs["diverged"]) for _, runs in table.groupby(keys)]
            for level, found in pd.concat(groups).items():
                columns[at_equal_loss(name, str(level), scope)] = found
    return table.assign(**columns)


def _at_shared_levels(passed: pd.DataFrame, diverged: pd.Series) -> pd.DataFrame:
    """The columns of the lowest and highest level that all runs which did not diverge pass; NaN if there is none.

    The columns of `passed` go from high to low levels.
    """
    shared = passed.columns[passed[~diverged.astype(bool)].notna().all()]
    there = len(shared) > 0 and not diverged.all()
    return pd.DataFrame(
        {level: passed[shared[place]] if there else math.nan for level, place in LEVELS.items()},
        index=passed.index,
    )
