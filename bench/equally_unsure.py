"""The picture of claim E14: of two penalties one flattens, and the other one makes predictions less sure.

    python bench/equally_unsure.py

Draws docs/static/equally-unsure.png from the committed runs on MNIST digits (`studies/equally-unsure.toml`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.claims.variants import EQUALLY_UNSURE, JACOBIAN_PENALTY, SGD, Variant, runs_of
from bench.findings import RUNS, Judged
from figures.panels import panel_grid
from figures.style import COLORS, PLAIN, TWO_COLUMNS, drawing, finish, legend_above, logarithmic, new_figure

FILE = Path(__file__).resolve().parents[1] / "docs/static/equally-unsure.png"
ACROSS = {
    "uncertainty_observed": "uncertainty of the predictions",
    "jacobian_trace_observed": "tr $J^T J$, logarithmic",
}
DATA = "mnist-5k"
ABOUT = (
    "4,000 MNIST digits, symmetric noise, an MLP. Each mark: mean and standard deviation over 5 seeds. Along the "
    "line the penalty on confidence grows from 0, which is SGD. Above: at equal uncertainty, the lower one memorizes "
    "less. Below: at equal tr $J^T J$."
)


def points_of(runs: pd.DataFrame, variant: Variant, across: str) -> pd.DataFrame:
    """One row for each strength of a variant's penalty: means and standard deviations, the least unsure first."""
    of_label = runs_of(runs, variant).groupby("method")
    order = of_label["uncertainty_observed"].mean().sort_values().index
    stats: pd.DataFrame = of_label[[across, "memorized"]].agg(["mean", "std"]).loc[order]
    return stats


def draw(ax: Axes, runs: pd.DataFrame, across: str) -> None:
    """What SGD and the penalties memorize in one cell, against a quantity."""
    sgd, unsure, flat = (
        points_of(runs, variant, across) for variant in (SGD, EQUALLY_UNSURE, JACOBIAN_PENALTY)
    )
    for points, look in (
        (pd.concat([sgd, unsure]), {"fmt": "-s", "color": COLORS[1], "label": "SGD, penalty on confidence"}),
        (flat, {"fmt": "*", "ms": 9, "color": COLORS[0], "label": "SGD, penalty on tr $J^T J$"}),
        (sgd, {"fmt": "o", "color": "black", "label": "SGD"}),
    ):
        (x, x_error), (y, y_error) = (
            (points[name, "mean"], points[name, "std"]) for name in (across, "memorized")
        )
        ax.errorbar(
            x, 100 * y, xerr=x_error, yerr=100 * y_error, ms=look.pop("ms", 4), elinewidth=0.6, **look
        )
    if across == "jacobian_trace_observed":
        logarithmic(ax.xaxis, [sgd[across, "mean"].max(), flat[across, "mean"].min()], most=4)


def picture(runs: pd.DataFrame) -> Figure:
    """Memorized wrong labels at each noise rate, against uncertainty (above) and against tr J^T J (below)."""
    runs = runs[runs["dataset"] == DATA]
    rates = sorted(runs["noise_rate"].unique())
    with drawing(PLAIN):
        figure = new_figure(TWO_COLUMNS, 1.0)
        grid = panel_grid(figure, len(ACROSS), len(rates), 1.7, share_x=False)
        for row, (across, words) in zip(grid.axes, ACROSS.items(), strict=True):
            for ax, rate in zip(row, rates, strict=True):
                draw(ax, runs[runs["noise_rate"] == rate], across)
                ax.set_xlabel(words)
                ax.set_title(f"{rate:.0%} wrong labels")
                ax.set_ylim(bottom=0)
            row[0].set_ylabel("memorized, %")
        legend_above(figure, [grid.axes[0, 0]])
        finish(figure, PLAIN, ABOUT)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=RUNS / "equally-unsure.csv")
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    picture(Judged.of_file(arguments.runs).runs).savefig(arguments.out)


if __name__ == "__main__":
    main()
