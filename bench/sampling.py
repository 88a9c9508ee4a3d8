"""Whether sampling errors hold: draws of samples from a large set, of which the true numbers are known.

    python bench/sampling.py --draws 100

Writes `docs/tables/sampling.csv`: one row for each number of samples and quantity. The samples of each draw are drawn
with replacement, so that the whole set is the source. A row holds the true value, the number of draws in which the
measure converged, the mean of what was measured and of the bias that was estimated, the standard deviation over the
draws, the mean standard error, and how often the 95% interval held the true value.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from landscape import Evaluation, Objective, SamplingError, sampling_error, sharpness, top_eigenvalues, trace
from ncsam.datasets import load_dataset
from ncsam.label_noise import corrupt_labels

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "sampling.csv"
FIELDS = ("samples", "quantity", "truth", "draws", "measured", "bias", "spread", "standard_error", "held")
SIZES = (100, 400, 1600)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def trained(inputs: Tensor, labels: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(60):
        for batch in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return model


def errors_of(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> Iterator[SamplingError]:
    """The sampling errors of the measures that converge."""
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, labels))
    for measured in (
        top_eigenvalues(objective, 3, tol=0.02, seed=seed),
        trace(objective, rtol=0.02, max_products=400, seed=seed),
        sharpness(objective, rho=0.5, seed=seed),
        objective.evaluate(),
    ):
        if isinstance(measured, Evaluation) or np.all(measured.converged):
            yield sampling_error(objective, measured, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args()
    data = load_dataset("digits").train
    labels = corrupt_labels(data.targets, kind="symmetric", rate=0.4, seed=0).observed
    model = trained(data.inputs, labels)
    truth = {
        name: value
        for found in errors_of(model, data.inputs, labels, seed=0)
        for name, value in zip(found.quantity, found.values, strict=True)
    }
    rows: list[tuple[object, ...]] = []
    for samples in SIZES:
        found = []
        for draw in range(arguments.draws):
            some = torch.randint(0, len(labels), (samples,), generator=torch.Generator().manual_seed(draw))
            found += errors_of(model, data.inputs[some], labels[some], draw)
            print(f"{samples} samples: {draw + 1} of {arguments.draws} draws", flush=True)
        rows += [(samples, name, *summary(found, name, value)) for name, value in truth.items()]
    with TABLE.open("w", newline="") as file:
        csv.writer(file).writerows([FIELDS, *rows])


def summary(found: list[SamplingError], name: str, truth: float) -> tuple[str, ...]:
    """The fields of one row after the name of the quantity."""
    draws = np.array(
        [
            (one.values[i], one.biases[i], one.standard_errors[i], one.low[i] <= truth <= one.high[i])
            for one in found
            for i in np.flatnonzero(one.quantity == name)
        ]
    )
    values, biases, errors, held = draws.T
    numbers = values.mean(), biases.mean(), values.std(ddof=1), errors.mean(), held.mean()
    return f"{truth:.4g}", str(len(draws)), *(f"{number:.4g}" for number in numbers)


if __name__ == "__main__":
    main()
