"""The figure of docs/answer.md at equal training loss: fixed and redrawn labels along their trainings.

python bench/equal_loss.py results/static-labels-along results/fresh-labels-along
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import figures
from analysis.claims.variants import REDRAWN
from analysis.store import read_histories

FILE = Path(__file__).resolve().parents[1] / "docs/static/equal-loss.png"


def looks_of(histories: pd.DataFrame) -> pd.DataFrame:
    """The probed epochs whose curvature converged, with `series`, `loss` and `value`."""
    probed = histories[histories["probe_curvature_parts_converged_observed"] == 1]
    is_redrawn = probed["noise_kind"].str.endswith(REDRAWN)
    return probed.assign(
        series=is_redrawn.map({False: "labels that stay", True: "labels redrawn at each step"}),
        loss=probed["probe_loss_observed"],
        value=probed["probe_jacobian_trace_observed"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    histories = pd.concat([read_histories(root) for root in parser.parse_args().results])
    figure = figures.against_training_loss(
        looks_of(histories),
        "tr $J^T J$",
        about="4,000 MNIST digits, MLP 784-64-64-10, SGD at a constant rate, 80 epochs",
    )
    figure.savefig(FILE)


if __name__ == "__main__":
    main()
