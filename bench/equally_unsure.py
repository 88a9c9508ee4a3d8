"""The picture and the numbers of claim E14: SGD with a penalty on tr J^T J, and with a penalty on confidence.

    python -m bench.equally_unsure

From the committed runs of the studies equally-unsure and equally-unsure-fashion. Draws docs/static/equally-unsure.png
of the MNIST digits, writes docs/tables/equally-unsure-cells.csv, and prints how networks differ in further quantities.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.claims.variants import (
    CELL,
    EQUALLY_STEEP,
    EQUALLY_UNSURE,
    JACOBIAN_PENALTY,
    PAIRED_BY,
    SGD,
    Variant,
    runs_of,
    select,
)
from bench.findings import RUNS, TABLES, Judged
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
    "line the penalty on confidence grows from 0, which is SGD. Above: at equal uncertainty the star lies below the "
    "line. Below: at equal tr $J^T J$ it does so, too."
)


NETWORKS = {
    "SGD": SGD,
    "penalty on confidence, equally unsure": EQUALLY_UNSURE,
    "penalty on confidence, equal tr JᵀJ": EQUALLY_STEEP,
    "penalty on tr JᵀJ": JACOBIAN_PENALTY,
}


COMPARED = {
    "penalty on tr J^T J less equally unsure": (JACOBIAN_PENALTY, EQUALLY_UNSURE),
    "equal tr J^T J less penalty on tr J^T J": (EQUALLY_STEEP, JACOBIAN_PENALTY),
    "equally unsure less SGD": (EQUALLY_UNSURE, SGD),
    "equal tr J^T J less SGD": (EQUALLY_STEEP, SGD),
    "penalty on tr J^T J less SGD": (JACOBIAN_PENALTY, SGD),
}
EXPLORED = {
    **dict.fromkeys(("memorized", "test_accuracy", "best_test_accuracy", "right_fitted", "recovered"), False),
    **dict.fromkeys(
        (
            *("uncertainty_observed", "jacobian_trace_observed", "scaled_trace", "top_eigenvalue_observed"),
            *("trace_observed", "sharpness_observed", "sharpness_elementwise_observed"),
            *("sharpness_elementwise_clean", "sharpness_filter_observed"),
        ),
        True,
    ),
}
"""Quantities that are compared beside those of the claim, and whether in decades."""


def runs_with_more(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with `right_fitted`, the share of right labels that are predicted, and `scaled_trace`.

    That is tr J^T J by the fourth power of the norm of the weight matrices. For a ReLU network of three layers without
    biases, tr J^T J of the network whose weights are all multiplied by c is c^4 times as large.
    """
    wrong = runs["realised_noise_rate"]
    return runs.assign(
        right_fitted=(runs["train_accuracy"] - wrong * runs["memorized"]) / (1 - wrong),
        scaled_trace=runs["jacobian_trace_observed"] / runs["weight_norm"] ** 4,
    )


def cells_of(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell and network, with the means over seeds of some quantities.

    Args:
        runs: with the columns of `runs_with_more`.
    """
    columns = [
        *("memorized", "test_accuracy", "best_test_accuracy", "right_fitted", "uncertainty_observed"),
        *(
            "jacobian_trace_observed",
            "scaled_trace",
            "sharpness_elementwise_observed",
            "top_eigenvalue_observed",
        ),
    ]
    means = [
        select(runs, variant).groupby(CELL)[columns].mean().reset_index().assign(network=name)
        for name, variant in NETWORKS.items()
    ]
    # a stable sort: in each cell the networks stay in their order
    table = pd.concat(means).sort_values(CELL, kind="stable")
    return table[["dataset", "noise_rate", "network", *columns]]


def differences(
    runs: pd.DataFrame, first: Variant, second: Variant, column: str, *, decades: bool
) -> pd.Series:
    """How two networks differ in a quantity: for each cell the mean over pairs of one seed.

    Args:
        runs: with the columns of `runs_with_more`.
        first: the variant from which the other one is subtracted.
        second: the other variant.
        column: the quantity.
        decades: whether decimal logarithms are subtracted.
    """
    sides = [select(runs, variant)[[*PAIRED_BY, column]] for variant in (first, second)]
    pairs = sides[0].merge(sides[1], on=PAIRED_BY, suffixes=("_first", "_second"))
    values = pairs[[f"{column}_first", f"{column}_second"]].transform(np.log10 if decades else np.asarray)
    found: pd.Series = (values.iloc[:, 0] - values.iloc[:, 1]).groupby([pairs[name] for name in CELL]).mean()
    return found


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
    runs = runs_with_more(Judged.of_file(arguments.runs).runs)
    picture(runs).savefig(arguments.out)
    cells_of(runs).to_csv(TABLES / "equally-unsure-cells.csv", index=False, float_format="%.4g")
    for column, decades in EXPLORED.items():
        for name, sides in COMPARED.items():
            of_cells = differences(runs, *sides, column, decades=decades)
            print(
                f"{column}: {name}: {of_cells.mean():+.3f} ({', '.join(f'{one:+.3f}' for one in of_cells)})"
            )


if __name__ == "__main__":
    main()
