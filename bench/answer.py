"""The figure of docs/answer.md: fixed, redrawn and smoothed labels against the noise rate.

python bench/answer.py results/static-labels results/fresh-labels results/smoothed-labels
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import figures
from analysis.claims import QUANTITIES, SGD
from analysis.claims.label_mean import smoothed_runs
from analysis.claims.variants import runs_of
from analysis.plan.run_config import REDRAWN
from analysis.store import read_tables

FILE = Path(__file__).resolve().parents[1] / "docs/static/redrawn.png"
PANELS = (
    figures.Panel("jacobian_trace_observed", "tr $J^T J$"),
    figures.Panel("sharpness_elementwise_clean", "relative sharpness, true labels"),
    figures.Panel("test_accuracy", "test accuracy", is_logarithmic=False),
)


def series_of(table: pd.DataFrame) -> pd.DataFrame:
    """The plain runs with the three kinds of labels, named in `series`. Values that did not converge are NaN."""
    plain = runs_of(table, SGD)
    is_redrawn = plain["noise_kind"].str.endswith(REDRAWN)
    runs = pd.concat(
        [
            plain[~is_redrawn].assign(series="wrong labels that stay"),
            plain[is_redrawn].assign(series="redrawn at each step"),
            smoothed_runs(table).assign(series="the mean of redrawn labels"),
        ]
    )
    return runs.assign(**{name: runs[name].where(~QUANTITIES[name].unconverged(runs)) for name, *_ in PANELS})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    runs = series_of(read_tables(parser.parse_args().results))
    figure = figures.against_noise_rate(
        runs, PANELS, about="4,000 MNIST digits, MLP 784-64-64-10, SGD at a constant rate, 80 epochs"
    )
    figure.savefig(FILE)


if __name__ == "__main__":
    main()
