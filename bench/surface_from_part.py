"""Adaptive surfaces with the help of a part of the samples, beside adaptive ones of all samples and a full grid.

    python bench/surface_from_part.py            # some half an hour on one core
    python bench/surface_from_part.py --keep .   # keeps finished points of the full grids, to go on after a stop

Each network of `bench/part_of_samples.py`, and a ResNet-8, is trained from several seeds, which also draw the samples,
the wrong labels and the directions. It is evaluated at all 51 x 51 points, with the observed and with the true labels,
and by `surface(adaptive=True)` without and with `part=1/8`. The constants of the interpolation were chosen on networks
of other seeds. A row of `docs/tables/surface-from-part.csv` holds the network, the seed, the labels, the samples, the
range of the difference between all samples and the part, in that of the surface; for both ways the cost in evaluations
on all samples, processor seconds, the largest error, in those allowed (1% of the range, near small losses less), and
the shares of the interpolated points whose error is larger than estimated, for loss and accuracy; the mean error of the
accuracy; the points evaluated on all samples and on the part.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from cases import LOSS
from part_of_samples import MODELS, noisy_digits, trained
from timing import parser_of, write_table

from landscape import Directions, Objective, Surface, filter_normalized_directions, surface, surfaces
from landscape.curvature.random_part import random_part
from landscape.slices.loss_scale import LossScale

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "surface-from-part.csv"
OF_BOTH = ("cost", "seconds", "error", "loss_beyond", "accuracy_beyond", "accuracy_error")
FIELDS = (
    *("network", "seed", "labels", "samples", "difference"),
    *OF_BOTH,
    *(f"part_{name}" for name in OF_BOTH),
    *("on_all", "on_part"),
)
NETWORKS = {**MODELS, "ResNet-8": ("resnet", {"depth": 8, "width": 4})}
STEPS, TOLERANCE, PART = 51, 0.01, 1 / 8


def judged(found: Surface, seconds: float, full: Surface) -> tuple[str, ...]:
    """The columns `OF_BOTH` of a refined surface."""
    scale = LossScale.of(full.loss.reshape(-1, 1))
    allowed = scale.allowed(full.loss, TOLERANCE)
    error, wrong = np.abs(found.loss - full.loss), np.abs(found.accuracy - full.accuracy)
    assert found.evaluated is not None
    between = ~found.evaluated
    return (
        *(f"{found.cost:.0f}", f"{seconds:.1f}"),
        f"{(error / allowed).max():.2f}",
        f"{(error > found.loss_interpolation_error)[between].mean():.3f}",
        f"{(wrong > found.accuracy_interpolation_error)[between].mean():.3f}",
        f"{wrong.mean():.4f}",
    )


def rows_of(network: str, seed: int, samples: int, keep: Path | None) -> Iterator[tuple[str, ...]]:
    model, inputs, observed = trained(*NETWORKS[network], samples, seed)
    true = noisy_digits(samples, torch.Generator().manual_seed(seed))[2]
    objectives = {
        name: Objective(model, LOSS, (inputs, targets), chunk_size=500)
        for name, targets in (("observed", observed), ("true", true))
    }
    parts = {f"part, {name}": random_part(each, PART, seed) for name, each in objectives.items()}
    directions = filter_normalized_directions(objectives["observed"], 2, seed=seed)
    kept = None if keep is None else keep / f"{network.replace(' ', '-')}-{seed}-{samples}.h5"
    full = surfaces({**objectives, **parts}, directions, steps=STEPS, checkpoint=kept)
    for name, objective in objectives.items():
        difference = np.ptp(full[name].loss - full[f"part, {name}"].loss) / np.ptp(full[name].loss)
        plain, found = (refined(objective, directions, part, seed) for part in (None, PART))
        yield (
            *(network, str(seed), name, str(samples), f"{difference:.3f}"),
            *judged(*plain, full[name]),
            *judged(*found, full[name]),
            *(str(found[0].evaluations), str(np.sum(found[0].evaluated_on_part))),
        )


def refined(
    objective: Objective, directions: Directions, part: float | None, seed: int
) -> tuple[Surface, float]:
    """An adaptive surface, and its processor seconds. The seed draws the part."""
    start = time.process_time()
    found = surface(
        objective, directions, steps=STEPS, adaptive=True, tolerance=TOLERANCE, part=part, seed=seed
    )
    return found, time.process_time() - start


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="MODEL")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--keep", type=Path, help="folder in which full grids keep their finished points")
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = (
        row
        for network in arguments.models
        for seed in arguments.seeds
        for row in rows_of(network, seed, arguments.samples, arguments.keep)
    )
    write_table(arguments.table, FIELDS, rows)


if __name__ == "__main__":
    main()
