"""The tables that a benchmark printed, as CSV files.

    python bench/tables.py results/gpu/curvature.log docs/tables/gpu-curvature

Writes PREFIX-1.csv, PREFIX-2.csv and so on, a file for each table of the log, in the log's order.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path


def tables(lines: list[str]) -> list[list[list[str]]]:
    """The Markdown tables among the lines, each as rows of cells; the first row is the head."""
    found: list[list[list[str]]] = []
    inside = False
    for line in lines:
        if line.startswith("|---"):
            continue
        if line.startswith("| "):
            if not inside:
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip().strip("|").split("|")])
            inside = True
        elif not line.strip():
            # an empty line ends a table; lines that a library prints between two rows do not
            inside = False
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path)
    parser.add_argument("prefix")
    arguments = parser.parse_args()
    for number, rows in enumerate(tables(arguments.log.read_text().splitlines()), start=1):
        with Path(f"{arguments.prefix}-{number}.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
