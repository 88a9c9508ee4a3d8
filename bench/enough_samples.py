"""Whether `enough_samples` keeps its promise: draws of the order of the samples, against the numbers of all of them.

    python bench/enough_samples.py --draws 40          # some 5 minutes on one core

Writes `docs/tables/enough-samples.csv`: one row for each measure and tolerance, on the network of `bench/sampling.py`
and its digits, each shown several times with noise. A row holds the number of all samples and of those that were enough
(median of the draws), the share of the samples' products that all tries took of those on all samples, the root mean
square of the relative error against the value of all samples, and how often the 95% interval held this value.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sampling import trained
from timing import parser_of, write_table
from torch import nn

from landscape import Objective, enough_samples, top_eigenvalues, trace
from ncsam.datasets import load_dataset
from ncsam.label_noise import corrupt_labels

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "enough-samples.csv"
FIELDS = ("measure", "rtol", "of", "samples", "cost", "error", "held")
RTOLS = (0.1, 0.05)
COPIES = 8

Measure = Callable[[Objective], Any]
MEASURES: dict[str, Measure] = {
    "loss": lambda part: part.evaluate(),
    "top eigenvalue": lambda part: top_eigenvalues(part, tol=0.02),
    "trace": lambda part: trace(part, rtol=0.02, max_products=400),
}


def data() -> Objective:
    """The network, and digits with 40% wrong labels, each several times with noise."""
    digits = load_dataset("digits").train
    labels = corrupt_labels(digits.targets, kind="symmetric", rate=0.4, seed=0).observed
    model = trained(digits.inputs, labels)
    inputs = digits.inputs.repeat(COPIES, 1, 1, 1)
    inputs += 0.3 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
    return Objective(model, nn.CrossEntropyLoss(), (inputs, labels.repeat(COPIES)), chunk_size=2000)


def value_and_products(found: Any) -> tuple[float, int]:
    """The number that was measured, and the passes that it took."""
    if hasattr(found, "loss"):
        return found.loss, 1
    return float(np.ravel(getattr(found, "values", getattr(found, "value", None)))[0]), found.products


def row_of(name: str, rtol: float, objective: Objective, draws: int) -> tuple[str, ...]:
    measure = MEASURES[name]
    truth, whole = value_and_products(measure(objective))
    samples, costs, errors, held = [], [], [], []
    for seed in range(draws):
        spent = [0.0]

        def counted(part: Objective, spent: list[float] = spent) -> Any:
            found = measure(part)
            spent[0] += part.n_samples * value_and_products(found)[1]
            return found

        found = enough_samples(objective, counted, rtol=rtol, seed=seed)
        spent[0] += sum(found.tried) * found.sampling.products
        samples.append(found.samples)
        costs.append(spent[0] / (objective.n_samples * whole))
        errors.append(value_and_products(found.measured)[0] / truth - 1)
        held.append(found.sampling.low[0] <= truth <= found.sampling.high[0])
    return (
        *(
            name,
            f"{rtol:g}",
            str(objective.n_samples),
            f"{np.median(samples):.0f}",
            f"{np.median(costs):.2f}",
        ),
        f"{np.sqrt(np.mean(np.square(errors))):.3f}",
        f"{np.mean(held):.2f}",
    )


def main() -> None:
    parser: argparse.ArgumentParser = parser_of(__doc__)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    objective = data()
    rows = (row_of(name, rtol, objective, arguments.draws) for name in arguments.measures for rtol in RTOLS)
    write_table(arguments.table, FIELDS, rows)


if __name__ == "__main__":
    main()
