"""Whether sampling errors hold: draws of samples from a large set, of which the true numbers are known.

    python bench/sampling.py --draws 200

Writes `docs/tables/sampling.csv`: one row for each network, number of samples and quantity. The samples of each draw
are drawn with replacement, so that the whole set is the source. A row holds the true value, the mean over the draws of
what was measured and of the bias that was estimated, the standard deviation over the draws, the mean standard error,
and how often the 95% interval held the true value.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from landscape import Objective, SamplingError, sampling_error, sharpness, top_eigenvalues, trace
from ncsam.datasets import load_dataset
from ncsam.label_noise import corrupt_labels

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "sampling.csv"
FIELDS = ("network", "samples", "quantity", "truth", "measured", "bias", "spread", "standard_error", "held")
SIZES = (100, 400, 1600)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def trained(make: Callable[[], nn.Module], inputs: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return model


def errors_of(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> Iterator[SamplingError]:
    """The sampling errors of all quantities."""
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, labels))
    found = [
        top_eigenvalues(objective, 3, tol=0.02, seed=seed),
        trace(objective, rtol=0.02, max_products=400, seed=seed),
        sharpness(objective, rho=0.5, seed=seed),
        objective.evaluate(),
    ]
    for measured in found:
        yield sampling_error(objective, measured, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=200)
    arguments = parser.parse_args()
    data = load_dataset("digits").train
    labels = corrupt_labels(data.targets, kind="symmetric", rate=0.4, seed=0).observed
    rows = []
    for name, make, epochs in (("MLP", mlp, 60), ("CNN", cnn, 60)):
        model = trained(make, data.inputs, labels, epochs)
        truth = np.concatenate([found.values for found in errors_of(model, data.inputs, labels, 0)])
        for samples in SIZES:
            drawn = []
            for draw in range(arguments.draws):
                generator = torch.Generator().manual_seed(draw)
                some = torch.randint(0, len(labels), (samples,), generator=generator)
                drawn.append(list(errors_of(model, data.inputs[some], labels[some], draw)))
                print(
                    f"\r{name}, {samples} samples: {draw + 1} of {arguments.draws} draws", end="", flush=True
                )
            rows += list(summary(name, samples, truth, drawn))
            print()
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([FIELDS, *rows])


def summary(
    name: str, samples: int, truth: np.ndarray, drawn: list[list[SamplingError]]
) -> Iterator[tuple[object, ...]]:
    """The rows of one network and number of samples."""

    def column(field: str) -> np.ndarray:
        return np.array([np.concatenate([getattr(found, field) for found in draw]) for draw in drawn])

    values, biases, errors = column("values"), column("biases"), column("standard_errors")
    held = (column("low") <= truth) & (truth <= column("high"))
    for i, quantity in enumerate(np.concatenate([found.quantity for found in drawn[0]])):
        numbers = (
            truth[i], values[:, i].mean(), biases[:, i].mean(), values[:, i].std(ddof=1), errors[:, i].mean(),
            held[:, i].mean(),
        )  # fmt: skip
        yield name, samples, quantity, *(f"{number:.4g}" for number in numbers)


if __name__ == "__main__":
    main()
