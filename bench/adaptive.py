"""Adaptive surfaces compared with full ones, on trained networks: evaluations, largest error and its estimate.

    pip install -c constraints.txt -e '.[data]'
    python bench/adaptive.py                     # some 20 minutes on one core

The grids have 51 x 51 points, the data are mnist-5k with 40% wrong labels. Each network is trained from several seeds,
which also draw the wrong labels and the directions. The constants of the interpolation were chosen on networks of other
seeds. A row of `docs/tables/adaptive.csv` holds the network, the images, the seed, the evaluations; the largest error
of the loss and its largest estimate, both relative to the range on the full grid; the largest error relative to the
loss there; the shares of the interpolated points whose error is larger than estimated, for loss and accuracy; the
largest error of the accuracy and its largest estimate.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from surfaces import EPOCHS, LOSS, trained
from timing import parser_of, write_table

from landscape import Objective, filter_normalized_directions, surface

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "adaptive.csv"
FIELDS = (
    *("network", "images", "seed", "evaluations", "error", "estimate", "relative_error", "beyond"),
    *("accuracy_error", "accuracy_estimate", "accuracy_beyond"),
)
STEPS = 51
MODELS = {
    "MLP 64-64": ("mlp", {"hidden": [64, 64]}, 1000),
    "CNN 8-16-32, BatchNorm": ("cnn", {"channels": [8, 16, 32]}, 200),
    "ResNet-8": ("resnet", {"depth": 8}, 50),
}


def measured(objective: Objective, seed: int) -> tuple[str, ...]:
    """The columns from "evaluations" on."""
    directions = filter_normalized_directions(objective, 2, seed=seed)
    full = surface(objective, directions, steps=STEPS)
    refined = surface(objective, directions, steps=STEPS, adaptive=True)
    spread = np.ptp(full.loss)
    error, wrong = np.abs(refined.loss - full.loss), np.abs(refined.accuracy - full.accuracy)
    estimate, accuracy_estimate = refined.loss_interpolation_error, refined.accuracy_interpolation_error
    assert refined.evaluated is not None
    assert estimate is not None
    assert accuracy_estimate is not None

    def beyond(errors: NDArray[np.float64], estimates: NDArray[np.float64]) -> str:
        return f"{(errors > estimates)[~refined.evaluated].mean():.4f}"

    shares = error.max() / spread, estimate.max() / spread, (error / full.loss).max()
    return (
        str(refined.evaluations),
        *(f"{share:.5f}" for share in shares),
        beyond(error, estimate),
        *(f"{wrong.max():.4f}", f"{accuracy_estimate.max():.4f}"),
        beyond(wrong, accuracy_estimate),
    )


def rows_of(network: str, seeds: list[int]) -> Iterator[tuple[str, ...]]:
    name, options, images = MODELS[network]
    for seed in seeds:
        model, inputs, labels = trained(name, options, images, EPOCHS[name], seed=seed)
        yield network, str(images), str(seed), *measured(Objective(model, LOSS, (inputs, labels)), seed)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_table(
        arguments.table, FIELDS, (row for name in arguments.models for row in rows_of(name, arguments.seeds))
    )


if __name__ == "__main__":
    main()
