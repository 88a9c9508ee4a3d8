"""Whether a surface is cheaper with the help of a part of the samples: its shape from a part, a correction from all.

    python bench/surface_from_part.py            # some 5 minutes on one core

Each network of `bench/part_of_samples.py`, and a ResNet-8, is evaluated at all 51 x 51 points, on all samples and on a
random eighth. From these values three surfaces are interpolated as `landscape.surface(adaptive=True)` does: that of all
samples; that of the eighth; and their difference, from few first points, to the error that the whole surface may have.
A row of `docs/tables/surface-from-part.csv` holds the network, the samples, the range of the difference in that of the
surface, and in evaluations on all samples: the cost of the plain way, of the part, of the correction, and of both. The
last columns are the largest errors of both ways, in those allowed: 1% of the range, near small losses less.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from cases import LOSS
from part_of_samples import MODELS, trained
from timing import parser_of, write_table

from landscape import Objective, filter_normalized_directions, surfaces
from landscape.evaluation.evaluator import Values
from landscape.results.fields import FloatArray
from landscape.slices import adaptive

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "surface-from-part.csv"
FIELDS = (
    "network",
    "samples",
    "difference",
    "plain",
    "part",
    "correction",
    "both",
    "plain_error",
    "both_error",
)
NETWORKS = {**MODELS, "ResNet-8": ("resnet", {"depth": 8, "width": 4})}
STEPS, TOLERANCE, PART = 51, 0.01, 8
FEWER = 5
"""Points on each axis with which the correction begins; the plain way begins with nine."""


def grids(network: str, samples: int) -> tuple[FloatArray, FloatArray]:
    """The loss of all samples and of a random part at all points."""
    model, inputs, targets = trained(*NETWORKS[network], samples)
    whole = Objective(model, LOSS, (inputs, targets), chunk_size=500)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(0))
    part = whole.subset(samples=order[: samples // PART])
    directions = filter_normalized_directions(whole, 2, seed=0)
    found = surfaces({"whole": whole, "part": part}, directions, steps=STEPS)
    return found["whole"].loss, found["part"].loss


def interpolated(values: FloatArray, tolerance: float, start: int) -> tuple[FloatArray, int]:
    """A surface from some of its values, and the number of these."""
    axis = np.linspace(-1, 1, STEPS)

    def evaluate(multiples: FloatArray, *_: object) -> Values:
        i, j = ((multiples + 1) / 2 * (STEPS - 1)).round().astype(int).T
        return Values(values[i, j][:, None], np.full((len(i), 1), np.nan), None, None)

    adaptive.START, adaptive.ROUND = start, 24 if start == 9 else FEWER
    found = adaptive.refined(evaluate, (axis, axis), tolerance, lambda *_: None)
    return found.values.loss.reshape(STEPS, STEPS), int(found.errors.evaluated.sum())


def row_of(network: str, samples: int) -> tuple[str, ...]:
    whole, part = grids(network, samples)
    spread, difference = np.ptp(whole), np.ptp(whole - part)
    allowed = TOLERANCE * np.minimum(
        spread, adaptive.LOCAL * np.maximum(np.abs(whole), adaptive.FLOOR * spread)
    )
    plain, of_plain = interpolated(whole, TOLERANCE, 9)
    shape, of_part = interpolated(part, TOLERANCE, 9)
    # a constant keeps the rule for small losses away from differences, which may be 0 anywhere
    shift = 10 * difference
    rest, of_rest = interpolated(whole - part + shift, TOLERANCE * spread / difference, FEWER)
    both = shape + rest - shift
    return (
        *(network, str(samples), f"{difference / spread:.3f}"),
        *(str(of_plain), f"{of_part / PART:.0f}", str(of_rest), f"{of_part / PART + of_rest:.0f}"),
        *(f"{(np.abs(each - whole) / allowed).max():.2f}" for each in (plain, both)),
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="MODEL")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    rows = (row_of(network, arguments.samples) for network in arguments.models)
    write_table(arguments.table, FIELDS, rows)


if __name__ == "__main__":
    main()
