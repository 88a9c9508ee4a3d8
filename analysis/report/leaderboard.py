"""The leaderboard of finished runs: accuracies and cost of each cell, and ranks over cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.plan.leaderboard import OVER_ALL, Leaderboard
from analysis.statistics.ranking import Ranking, rank_methods
from landscape.results.wording import percent

CELL = ["data", "noise_kind", "noise_rate"]
"""Columns that name a cell."""

TOLERANCE = 0.05
"""A method that spent so much more or less than its budget of gradients is marked."""


@dataclass(frozen=True)
class Ranked:
    """The ranking over the cells of some data sets.

    Attributes:
        name: of the data sets.
        ranking: of the methods that have a result in every cell.
        left_out: methods without a result in some of the cells, which have no rank.
        unfinished: cells in which a method lacks seeds; no method is ranked there.
        steady_p: p-value over the methods that diverged in no cell; NaN for fewer than two methods or data sets.
    """

    name: str
    ranking: Ranking
    left_out: list[str]
    unfinished: list[str]
    steady_p: float


def cells_table(board: Leaderboard, runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell and method: means over the seeds.

    `last` and `best` are test accuracies at the last and at the best epoch. Only test data tell which epoch is best, so
    that methods are ranked by the last one. `hyperparameters` has all choices that the seeds made. `gradients` are in
    passes over the training set. A training that diverged has no accuracy, and neither has the mean of its cell.

    Args:
        board: the leaderboard.
        runs: one row a run, as of a study's table, with the columns `data`, `budget`, `passes` and `planned_seeds`.
    """
    controls = {method.title for method in board.methods if method.control}
    rows = []
    for (*cell, method), of_cell in runs.groupby([*CELL, "method"], sort=False):
        last = of_cell["test_accuracy"].where(~of_cell["diverged"].astype(bool))
        rows.append(
            {
                **dict(zip(CELL, cell, strict=True)),
                "method": method,
                "control": method in controls,
                "seeds": len(of_cell),
                "planned_seeds": int(of_cell["planned_seeds"].iloc[0]),
                "diverged": int(of_cell["diverged"].sum()),
                "last": last.mean(skipna=False),
                "last_sd": last.std(skipna=False),
                "best": of_cell["best_test_accuracy"].mean(skipna=False),
                "memorized": of_cell["memorized"].mean(skipna=False),
                "gradients": of_cell["passes"].mean(),
                "budget": of_cell["budget"].iloc[0],
                "hyperparameters": "; ".join(of_cell["hyperparameters"].unique()),
            }
        )
    return pd.DataFrame(rows)


def rankings(cells: pd.DataFrame) -> list[Ranked]:
    """The ranking over all cells, and over those of each data set, where there are two cells or more."""
    parts = [(OVER_ALL, cells), *((str(name), rows) for name, rows in cells.groupby("data", sort=False))]
    if cells["data"].nunique() == 1:
        parts = parts[1:]
    return [found for name, rows in parts if (found := _ranked(name, rows)) is not None]


def _ranked(name: str, cells: pd.DataFrame) -> Ranked | None:
    ranked = cells[~cells["control"]]
    # a missing cell is no row, while one that diverged is a row without a number
    scores = ranked.set_index([*CELL, "method"])["last"].unstack("method")
    rows = ranked["method"].value_counts(sort=False)
    whole = [method for method in ranked["method"].unique() if rows[method] == len(scores)]
    left_out = [method for method in ranked["method"].unique() if method not in whole]
    lacking = ranked[ranked["method"].isin(whole) & (ranked["seeds"] < ranked["planned_seeds"])]
    unfinished = list(dict.fromkeys(words_of_cell(row) for _, row in lacking.iterrows()))
    scores = scores.drop(index=list(dict.fromkeys(lacking[CELL].itertuples(index=False, name=None))))
    if len(whole) < 2 or len(scores) < 2:
        return None
    table = scores[whole].to_numpy(dtype=np.float64)
    steady = [place for place in range(len(whole)) if np.isfinite(table[:, place]).all()]
    of_cells = list(scores.index.get_level_values("data"))
    p = np.nan
    if len(steady) > 1:
        p = rank_methods([whole[i] for i in steady], table[:, steady], of_cells).p_value
    return Ranked(name, rank_methods(whole, table, of_cells), left_out, unfinished, p)


def ranks_table(found: list[Ranked]) -> pd.DataFrame:
    """One row for each ranking and method, from the best to the worst."""
    rows = []
    for ranked in found:
        ranking = ranked.ranking
        for place in ranking.order.tolist():
            rows.append(
                {
                    "over": ranked.name,
                    "cells": ranking.cells,
                    "data_sets": ranking.data_set_count,
                    "method": ranking.methods[place],
                    "mean_rank": ranking.mean[place],
                    "low": ranking.low[place],
                    "high": ranking.high[place],
                    "best_rank": ranking.ranks[:, place].min(),
                    "worst_rank": ranking.ranks[:, place].max(),
                    "p_value": ranking.p_value,
                    "p_value_without_diverged": ranked.steady_p,
                    "critical_difference": ranking.critical_difference,
                    "told_apart_from_best": ranking.differs(int(ranking.order[0]), place),
                }
            )
    return pd.DataFrame(rows)


def words_of_cell(row: pd.Series) -> str:
    """A cell in words, such as "digits, symmetric 40%"."""
    return f"{row['data']}, {row['noise_kind']} {percent(row['noise_rate'])}"


def markdown(cells: pd.DataFrame, found: list[Ranked]) -> str:
    """The leaderboard as Markdown: ranks first, then the accuracies of each cell, last / best epoch in percent."""
    lines: list[str] = []
    for ranked in found:
        lines += _ranks(ranked)
        if ranked.left_out:
            lines += ["", f"Without a rank, as they are not in every cell: {', '.join(ranked.left_out)}."]
        if ranked.unfinished:
            lines += ["", f"Not ranked, as seeds are missing: {'; '.join(ranked.unfinished)}."]
        lines.append("")
    for name, rows in cells.groupby("data", sort=False):
        lines += [
            f"**{name}**: test accuracy at the last / best epoch in percent",
            "",
            *_accuracies(rows),
            "",
        ]
    return "\n".join(lines)


def _ranks(ranked: Ranked) -> list[str]:
    """A row for each method. Over one data set, whose cells are not independent, nothing is tested."""
    ranking = ranked.ranking
    order = ranking.order.tolist()
    if ranking.data_set_count == 1:
        lines = [
            f"**Ranks over {ranked.name}** ({ranking.cells} cells)",
            "",
            "| method | mean rank | best to worst rank |",
            "|---|---|---|",
        ]
        for place in order:
            ends = f"{ranking.ranks[:, place].min():g} to {ranking.ranks[:, place].max():g}"
            lines.append(f"| {ranking.methods[place]} | {ranking.mean[place]:.2f} | {ends} |")
        return lines
    lines = [
        f"**Ranks over {ranked.name}** ({ranking.cells} cells of {ranking.data_set_count} data sets; "
        f"p = {ranking.p_value:.2g}, {ranked.steady_p:.2g} without the methods that diverged; "
        f"critical difference {ranking.critical_difference:.2f})",
        "",
        "| method | mean rank | 95% interval | told apart from the best |",
        "|---|---|---|---|",
    ]
    for place in order:
        apart = "yes" if ranking.differs(order[0], place) else "no"
        interval = f"{ranking.low[place]:.1f} to {ranking.high[place]:.1f}"
        lines.append(f"| {ranking.methods[place]} | {ranking.mean[place]:.2f} | {interval} | {apart} |")
    return lines


def _accuracies(rows: pd.DataFrame) -> list[str]:
    """A row for each method, a column for each cell, and the gradients that the method spent."""
    columns = rows[CELL].drop_duplicates()
    titles = [f"{row['noise_kind']} {percent(row['noise_rate'])}" for _, row in columns.iterrows()]
    lines = [f"| method | {' | '.join(titles)} | gradients |", "|---" * (len(titles) + 2) + "|"]
    for method in rows["method"].unique():
        own = rows[rows["method"] == method]
        cells = []
        for _, column in columns.iterrows():
            here = own[(own[CELL] == column).all(axis=1)]
            cells.append(_words(here.iloc[0]) if len(here) else "")
        title = f"{method} (control)" if own["control"].iloc[0] else method
        lines.append(f"| {title} | {' | '.join(cells)} | {words_of_gradients(own)} |")
    return lines


def words_of_gradients(rows: pd.DataFrame) -> str:
    """The mean number of gradients that a method spent, and the shares of its budget if one is not about the whole."""
    spent = f"{rows['gradients'].mean():.1f}"
    shares = rows["gradients"] / rows["budget"]
    if (shares - 1).abs().max() <= TOLERANCE:
        return spent
    low, high = (f"{100 * share:.0f}%" for share in (shares.min(), shares.max()))
    return f"{spent} ({low if low == high else f'{low} to {high}'} of the budget)"


def _words(row: pd.Series) -> str:
    if not np.isfinite(row["last"]):
        return f"diverged ({row['diverged']} of {row['seeds']})"
    missing = row["seeds"] < row["planned_seeds"]
    marked = f" ({row['seeds']} of {row['planned_seeds']} seeds)" if missing else ""
    return f"{100 * row['last']:.1f} / {100 * row['best']:.1f}{marked}"
