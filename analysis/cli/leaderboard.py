"""`ncsam leaderboard`: trains every method on every data set and kind of noise, and ranks the methods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis import store
from analysis.cli.dry_run import print_plan
from analysis.cli.png import write_png
from analysis.engine import Resources
from analysis.engine.whole_study import run_study
from analysis.plan import Study
from analysis.plan.leaderboard import Leaderboard, RankedData, read_leaderboard, studies_of
from analysis.printable import say
from analysis.report.leaderboard import Ranked, cells_table, markdown, rankings, ranks_table
from figures import critical_difference


def run_leaderboard(
    path: Path, root: Path, resources: Resources, only: list[str], console: Console, *, dry_run: bool
) -> int:
    """Runs what is not finished of a leaderboard, and writes its tables and figures.

    Args:
        path: the leaderboard file.
        root: the folder; each data set with a kind of noise has a study's folder within.
        resources: engine, workers, device and data files.
        only: titles of data sets to train on; empty for all. The tables have all that is there.
        console: where progress and ranks are shown.
        dry_run: only print the plan and its cost.

    Returns:
        The exit status: 1 if runs failed.

    Raises:
        FileNotFoundError, ValueError: the file is no leaderboard, or a study cannot be run.
    """
    board = read_leaderboard(path)
    unknown = sorted(set(only) - {data.title for data in board.data})
    if unknown:
        raise ValueError(f"--only: {unknown[0]!r} is none of {', '.join(data.title for data in board.data)}")
    chosen = [
        (folder, data, study) for folder, data, study in studies_of(board) if not only or data.title in only
    ]
    if dry_run:
        for folder, _, study in chosen:
            print_plan(study, root / folder, resources, console)
            console.print()
        return 0
    failed: dict[str, str] = {}
    tables = {}
    for folder, _, study in chosen:
        say(console, f"{folder}:")
        outcome = run_study(study, root / folder, resources, console=console)
        failed |= {f"{folder}/{run}": error for run, error in outcome.failed.items()}
        tables[folder] = outcome.table
    runs = _all_runs(board, root, tables)
    if len(runs):
        _write(root, cells_table(board, runs), console)
    for run, error in failed.items():
        say(console, f"failed: {run}: {error}", style="red")
    return 1 if failed else 0


def _all_runs(board: Leaderboard, root: Path, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The runs of the studies that were run now, and of those that are there from before."""
    found = []
    for folder, data, study in studies_of(board):
        table = tables.get(folder)
        if table is None and (root / folder / "study.h5").exists():
            table = store.read_table(root / folder)
        if table is not None and len(table.columns):
            titles = [method.title for method in study.methods]
            found.append(_of_study(table[table["method"].isin(titles)], data, study))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _of_study(runs: pd.DataFrame, data: RankedData, study: Study) -> pd.DataFrame:
    """The runs of a study with title, seeds and budget of its data; gradients in passes over the training set."""
    # the last batch of an epoch is smaller, and counts for a step all the same
    steps = -(-runs["train_samples"] // study.training.batch_size)
    return runs.assign(
        data=data.title,
        planned_seeds=len(data.seeds),
        budget=float(study.training.epochs),
        passes=runs["gradients"] / steps,
    )


def _write(root: Path, cells: pd.DataFrame, console: Console) -> None:
    found = rankings(cells)
    # what an earlier call wrote may have no successor
    for old in [root / "ranks.csv", *root.glob("ranks-*.png")]:
        old.unlink(missing_ok=True)
    written = [root / "cells.csv", root / "leaderboard.md"]
    store.write_text(written[0], cells.to_csv(index=False, float_format="%.6g"))
    store.write_text(written[1], markdown(cells, found))
    if found:
        written.append(root / "ranks.csv")
        store.write_text(written[-1], ranks_table(found).to_csv(index=False, float_format="%.6g"))
    written += _figures(root, found)
    for ranked in found[:1]:
        ranking = ranked.ranking
        is_tested = ranking.data_set_count > 1
        tested = f" of {ranking.data_set_count} data sets, p = {ranking.p_value:.2g}" if is_tested else ""
        say(console, f"ranks over {ranked.name} ({ranking.cells} cells{tested}):")
        for place in ranking.order.tolist():
            interval = f"[{ranking.low[place]:.1f}, {ranking.high[place]:.1f}]  " if is_tested else ""
            say(console, f"{ranking.mean[place]:6.2f} {interval}{ranking.methods[place]}")
    for file in written:
        say(console, f"written: {file}")


def _figures(root: Path, found: list[Ranked]) -> Iterator[Path]:
    """The diagrams of the rankings over several data sets. Over one, no method is told apart from another."""
    for ranked in found:
        ranking = ranked.ranking
        if ranking.data_set_count == 1:
            continue
        figure = critical_difference(
            ranking.methods,
            ranking.mean,
            list(zip(ranking.low, ranking.high, strict=True)),
            ranking.groups(),
            difference=ranking.critical_difference,
            about=f"{ranking.data_set_count} data sets, {ranking.cells} cells",
        )
        path = root / f"ranks-{ranked.name}.png"
        write_png(path, figure)
        yield path
