"""The picture of the README, from a finished study's stored results:

    python bench/readme_picture.py results/quick

SGD beside SAM at 40% wrong labels. The numbers are means over the seeds, and the landscape is that of one of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import figures
from analysis import store
from landscape import Surface

METHODS = ("SGD", "SAM")
RATE = 0.4
WIDTH = 8.6
"""Inches: the picture is as wide as the page."""
PICTURE = Path(__file__).resolve().parents[1] / "figures/gallery/sgd_beside_sam.png"


def numbers(runs: pd.DataFrame) -> str:
    """The means over seeds, in one line."""
    return (
        f"accuracy {100 * runs['test_accuracy'].mean():.1f}%  ·  "
        f"top eigenvalue {runs['top_eigenvalue_observed'].mean():.1f}  ·  "
        f"sharpness {runs['sharpness_observed'].mean():.1f} nat"
    )


def panel(root: Path, method: str, surfaces: dict[str, Surface]) -> tuple[str, str, Surface]:
    """(title, numbers, surface) of a method."""
    table = store.read_table(root)
    runs = table[(table["method"] == method) & (table["noise_rate"] == RATE)]
    return method, numbers(runs), surfaces[method]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    found = store.read_results(arguments.results, "surface/plane-observed")
    surfaces = {run.method: surface for run, surface in found if run.noise_rate == RATE}
    study = next(run for run, _ in found)
    figure = figures.shaded_relief(
        [panel(arguments.results, method, surfaces) for method in METHODS],
        loss_name="cross-entropy, observed labels",
        about=f"{study.dataset}, {RATE:.0%} wrong labels.",
        width=WIDTH,
    )
    figure.savefig(arguments.out, dpi=150)


if __name__ == "__main__":
    main()
