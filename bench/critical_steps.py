"""The table of critical steps behind claim E5: one row for each run with wrong labels.

    python bench/critical_steps.py results/static-labels results/static-labels-pair results/static-labels-fashion

Writes docs/tables/critical-steps.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.claims import QUANTITIES
from analysis.claims.prediction import noisy_runs
from analysis.store import read_tables

TABLE = Path(__file__).resolve().parents[1] / "docs/tables/critical-steps.csv"
COLUMNS = ["dataset", "noise_kind", "noise_rate", "method", "seed"]


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    runs = noisy_runs(read_tables(parser.parse_args().results))
    rates = {
        f"critical_rate_{loss}": runs[f"critical_learning_rate_{loss}"] for loss in ("observed", "clean")
    }
    table = runs[COLUMNS].assign(**rates, reach=QUANTITIES["reach"].values(runs))
    table.sort_values(COLUMNS).to_csv(TABLE, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
