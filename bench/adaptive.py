"""Refined surfaces compared with full ones, on trained networks: evaluations, largest error and its estimate.

    pip install -c constraints.txt -e '.[data]'
    python bench/adaptive.py                     # some 5 minutes on one core

The grids have 51 x 51 points, the data are mnist-5k with 40% wrong labels. The tables show the largest numbers over
several draws of filter-normalized directions for each network. Errors of the loss are relative to its range on the full
grid.
"""

from __future__ import annotations

import numpy as np
import torch
from surfaces import EPOCHS, LOSS, trained
from timing import parser_of, table

from landscape import Objective, filter_normalized_directions, surface

STEPS = 51
MODELS = {
    "MLP 64-64": ("mlp", {"hidden": [64, 64]}, 1000),
    "CNN 8-16-32, BatchNorm": ("cnn", {"channels": [8, 16, 32]}, 200),
    "ResNet-8": ("resnet", {"depth": 8}, 50),
}


def measured(objective: Objective, seed: int) -> list[float]:
    """Evaluations; largest error of the loss, its estimate, and largest relative error; the same for the accuracy."""
    directions = filter_normalized_directions(objective, 2, seed=seed)
    full = surface(objective, directions, steps=STEPS)
    refined = surface(objective, directions, steps=STEPS, adaptive=True)
    spread = np.ptp(full.loss)
    error = np.abs(refined.loss - full.loss)
    assert refined.loss_interpolation_error is not None
    assert refined.accuracy_interpolation_error is not None
    return [
        refined.evaluations,
        error.max() / spread,
        refined.loss_interpolation_error.max() / spread,
        (error / full.loss).max(),
        np.abs(refined.accuracy - full.accuracy).max(),
        refined.accuracy_interpolation_error.max(),
    ]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--draws", type=int, default=3, help="of directions, for each network (default: 3)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for title, (name, options, samples) in MODELS.items():
        model, inputs, labels = trained(name, options, samples, EPOCHS[name])
        objective = Objective(model, LOSS, (inputs, labels))
        worst = np.max([measured(objective, seed) for seed in range(args.draws)], axis=0)
        share = worst[0] / STEPS**2
        rows.append(
            [f"{title}, {samples:,} images", f"{worst[0]:.0f} ({share:.0%})"]
            + [f"{value:.2%}" for value in worst[1:4]]
            + [f"{worst[4]:.1%}, {worst[5]:.1%}"]
        )
    table(
        f"{STEPS} x {STEPS} points, largest of {args.draws} draws of directions",
        [
            "network",
            "evaluations",
            "largest error of the loss",
            "its estimate",
            "largest error relative to the loss there",
            "accuracy: largest error, its estimate",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
