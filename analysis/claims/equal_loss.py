"""Quantities of several runs at the same training loss.

Runs with more noise end at a higher training loss, and redrawn labels cannot be memorized. So a comparison at the end
of training mixes two causes: the labels, and the progress of the training.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from analysis.claims.broken_runs import broke
from analysis.claims.quantities import EQUAL_LOSS, LEVELS, at_equal_loss
from analysis.plan.run_config import REDRAWN
from analysis.store import LOSS_LEVELS, column_at_loss, flag_at_loss


def with_equal_loss(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns of `EQUAL_LOSS`: each quantity at a level of the training loss that runs share.

    The shared levels are those that all compared runs pass: a method's runs of one seed with fixed and with redrawn
    labels, or all its runs in a series of noise rates. The lowest and the highest of them are taken. The losses alone
    decide: a value that did not converge there is lost, and no other level takes its place. Runs that diverged or
    failed do not count. The table stays as it is if no run was probed along its training.
    """
    columns: dict[str, pd.Series] = {}
    is_broken = broke(table)
    kind = table["noise_kind"].str.removesuffix(REDRAWN)
    compared = {
        "pair": [table["dataset"], kind, table["noise_rate"], table["method"], table["seed"]],
        "series": [table["dataset"], table["noise_kind"], table["method"]],
    }
    for name in EQUAL_LOSS:
        levels = [level for level in LOSS_LEVELS if flag_at_loss(name, level) in table]
        if not levels:
            continue
        values, flags = (
            table[[column(name, level) for level in levels]].set_axis(levels, axis=1)
            for column in (column_at_loss, flag_at_loss)
        )
        for scope, keys in compared.items():
            groups = flags.groupby(keys).groups.values()
            levels_of = pd.concat([_shared_levels(flags.loc[runs], is_broken.loc[runs]) for runs in groups])
            for level, taken in levels_of.items():
                column = at_equal_loss(name, str(level), scope)
                columns[column] = _at(values, taken)
                columns[f"{column}_converged"] = _at(flags, taken)
    return pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1)


def _shared_levels(flags: pd.DataFrame, is_broken: pd.Series) -> pd.DataFrame:
    """The lowest and the highest level that all runs pass, broken runs left out; NaN if there is none.

    Args:
        flags: a row for each run and a column for each level, from high to low. A flag is NaN in runs that do not pass
            the level.
        is_broken: whether each run diverged or failed.
    """
    shared = flags.columns[flags[~is_broken].notna().all()]
    there = len(shared) > 0 and not is_broken.all()
    return pd.DataFrame(
        {level: shared[place] if there else math.nan for level, place in LEVELS.items()}, index=flags.index
    )


def _at(values: pd.DataFrame, levels: pd.Series) -> pd.Series:
    """For each run its value in the column of its level; NaN where there is no level."""
    places = values.columns.get_indexer(pd.Index(levels.reindex(values.index)))
    found = values.to_numpy(dtype=np.float64)[np.arange(len(values)), places]
    return pd.Series(np.where(places >= 0, found, np.nan), index=values.index)
