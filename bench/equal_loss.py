"""The figure and the table at equal training loss of docs/findings/redrawn-labels.md.

They show fixed and redrawn labels along their trainings.

    python bench/equal_loss.py results/static-labels-along results/fresh-labels-along

Writes docs/static/equal-loss.png and docs/tables/equal-loss.csv: the geometric mean of tr J^T J after the first and the
last epoch, and where the training loss passes a level, if all runs of a noise rate pass it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import figures
from analysis.plan.run_config import REDRAWN
from analysis.store import column_at_loss, read_histories, read_tables

DOCS = Path(__file__).resolve().parents[1] / "docs"
SHOWN_LEVELS = (2.1, 1.7, 1.2, 0.8, 0.4)


def looks_of(histories: pd.DataFrame) -> pd.DataFrame:
    """The probed epochs whose curvature converged, with `series`, `loss` and `value`."""
    probed = histories[histories["probe_curvature_parts_converged_observed"] == 1]
    is_redrawn = probed["noise_kind"].str.endswith(REDRAWN)
    return probed.assign(
        series=is_redrawn.map({False: "labels that stay", True: "labels redrawn at each step"}),
        loss=probed["probe_loss_observed"],
        value=probed["probe_jacobian_trace_observed"],
    )


def at_levels(table: pd.DataFrame, histories: pd.DataFrame) -> pd.DataFrame:
    """One row for each kind and rate of noise: the geometric mean over seeds at each of the `SHOWN_LEVELS`.

    The first columns are the same after the first and after the last epoch.
    """
    columns = {column_at_loss("jacobian_trace", level): f"{level:g} nat" for level in SHOWN_LEVELS}
    by_level = _geometric_means(table.rename(columns=columns), list(columns.values()))
    probed = histories[histories["probe_jacobian_trace_observed"].notna()]
    by_epoch = {
        f"epoch {epoch}": _geometric_means(
            probed[probed["epoch"] == epoch], ["probe_jacobian_trace_observed"]
        )
        for epoch in (probed["epoch"].min(), probed["epoch"].max())
    }
    whole = pd.concat(
        [frame.iloc[:, 0].rename(name) for name, frame in by_epoch.items()] + [by_level], axis=1
    )
    return whole.reset_index()


def _geometric_means(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The means over the runs of each kind and rate of noise; NaN where a run has no number."""
    logarithms = table.set_index(["noise_kind", "noise_rate"])[columns].apply(np.log)
    runs = logarithms.groupby(level=[0, 1])
    means: pd.DataFrame = runs.mean().where(runs.count().eq(runs.size(), axis=0)).apply(np.exp)
    return means


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    results = parser.parse_args().results
    histories = pd.concat([read_histories(root) for root in results])
    figure = figures.against_training_loss(
        looks_of(histories),
        "tr $J^T J$",
        about="4,000 MNIST digits, MLP 784-64-64-10, SGD at a constant rate, 80 epochs",
    )
    figure.savefig(DOCS / "static/equal-loss.png")
    at_levels(read_tables(results), histories).to_csv(
        DOCS / "tables/equal-loss.csv", index=False, float_format="%.3g"
    )


if __name__ == "__main__":
    main()
