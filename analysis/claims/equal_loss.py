"""Quantities of several runs at the same training loss.

Runs with more noise end at a higher training loss, and redrawn labels cannot be memorized. So a comparison at the end
of training mixes two causes: the labels, and the progress of the training.
"""

from __future__ import annotations

import pandas as pd

from analysis.claims.quantities import EQUAL_LOSS, at_equal_loss
from analysis.claims.variants import REDRAWN
from analysis.store import LOSS_LEVELS, column_at_loss


def with_equal_loss(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns of `EQUAL_LOSS`: each quantity at a level of the training loss that runs share.

    The level is the lowest one that all compared runs pass. The compared runs are those of a method and seed with fixed
    and with redrawn labels, or those of a method in a series of noise rates. Runs that diverged do not count. If no run
    was probed along its training, the table does not change.
    """
    columns: dict[str, pd.Series] = {}
    kind = table["noise_kind"].str.removesuffix(REDRAWN)
    compared = {
        "pair": [table["dataset"], kind, table["noise_rate"], table["method"], table["seed"]],
        "series": [table["dataset"], table["noise_kind"], table["method"]],
    }
    for name in EQUAL_LOSS:
        levels = [column for level in LOSS_LEVELS if (column := column_at_loss(name, level)) in table]
        if not levels:
            continue
        for scope, keys in compared.items():
            lowest = [_at_lowest_level(runs[levels], runs["diverged"]) for _, runs in table.groupby(keys)]
            columns[at_equal_loss(name, scope)] = pd.concat(lowest)
    return table.assign(**columns)


def _at_lowest_level(passed: pd.DataFrame, diverged: pd.Series) -> pd.Series:
    """The column of the lowest level that all runs which did not diverge pass. Columns go from high to low levels."""
    is_common = passed[~diverged.astype(bool)].notna().all()
    common = passed.columns[is_common]
    return passed[common[-1]] if len(common) and not diverged.all() else pd.Series(float("nan"), passed.index)
