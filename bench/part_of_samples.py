"""The trace with the help of a part of the samples, beside the plain way, and beside curvlinops if it is installed.

    pip install -c constraints.txt -e '.[bench]'
    python bench/part_of_samples.py              # some 5 minutes on one core

Small networks are trained on digits that are shifted by up to a pixel and noised, with 40% wrong labels. They are so
small that the exact trace is known: the sum over all unit vectors. A row of `docs/tables/part-of-samples.csv` holds the
network, the samples, who, the tolerance or the products asked for, the products spent (those on the part by their
share), the root mean square of the relative error over the draws, and how often the 95% interval held the exact trace.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import LOSS, Case
from timing import parser_of, write_table
from torch import Tensor

from landscape import Objective, diagonal, trace
from ncsam import build_model, corrupt_labels, load_dataset

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "part-of-samples.csv"
FIELDS = ("network", "samples", "who", "asked", "products", "error", "held", "of_plain")
MODELS = {"MLP 16": ("mlp", {"hidden": [16]}), "CNN 4-4": ("cnn", {"channels": [4, 4]})}
MEASURED = ["MLP 16"]
"""In the table; the CNN takes much longer on the CPU."""
RTOL, MOST = 0.01, 400
BUDGET = 25
"""Products that the budget of a row with `part=1/8` allows, and of curvlinops."""


def trained(name: str, options: dict[str, list[int]], samples: int, seed: int = 0) -> Case:
    """A network trained for three epochs, and the samples."""
    generator = torch.Generator().manual_seed(seed)
    inputs, targets, _ = noisy_digits(samples, generator)
    dataset = load_dataset("digits")
    model = build_model(name, dataset.input_shape, dataset.num_classes, seed=seed, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(3):
        for batch in torch.randperm(samples, generator=generator).split(128):
            optimizer.zero_grad()
            LOSS(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return model.eval(), inputs, targets


def noisy_digits(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Shifted, noised digits, their labels of which 40% are wrong, and their true labels.

    The first draws of a generator; its seed also draws the wrong labels.
    """
    seed = generator.initial_seed()
    dataset = load_dataset("digits")
    rows = torch.randint(0, len(dataset.train.inputs), (samples,), generator=generator)
    shifts = torch.randint(-1, 2, (samples, 2), generator=generator).tolist()
    shifted = [
        image.roll(shift, (1, 2)) for image, shift in zip(dataset.train.inputs[rows], shifts, strict=True)
    ]
    inputs = torch.stack(shifted)
    inputs += 0.3 * torch.randn(inputs.shape, generator=generator)
    true = dataset.train.targets[rows]
    return inputs, corrupt_labels(true, kind="symmetric", rate=0.4, seed=seed).observed, true


Found = tuple[float, int, bool | None]
"""A trace, the products spent, and whether the interval held the exact one; None without an interval."""


def ways(case: Case, exact: float) -> Iterator[tuple[str, str, Callable[[int], Found]]]:
    """(who, what was asked for, the trace of a draw): the plain way first."""
    objective = Objective(case[0], LOSS, case[1:], linearize=True)

    def ours(seed: int, part: float | None, **goal: Any) -> Found:
        found = trace(objective, seed=seed, part=part, method="xtrace", **goal)
        return found.value, found.products, found.low <= exact <= found.high

    within, at_cost = {"rtol": RTOL, "max_products": MOST}, {"rtol": None, "max_products": BUDGET}
    yield "ours", f"rtol {RTOL:g}", lambda seed: ours(seed, None, **within)
    yield "ours, part 1/8", f"rtol {RTOL:g}", lambda seed: ours(seed, 1 / 8, **within)
    yield "ours", f"{BUDGET} products", lambda seed: ours(seed, None, **at_cost)
    yield "ours, part 1/8", f"{BUDGET} products", lambda seed: ours(seed, 1 / 8, **at_cost)
    if importlib.util.find_spec("curvlinops") is None:
        return
    import curvlinops
    from peers import Peers

    def xtrace(seed: int) -> Found:
        torch.manual_seed(seed)
        return curvlinops.xtrace(Peers(case, 512).curvlinops(), BUDGET - 1).item(), BUDGET - 1, None

    yield "curvlinops, XTrace", f"{BUDGET - 1} products", xtrace


def rows_of(network: str, samples: int, draws: int) -> Iterator[tuple[str, ...]]:
    case = trained(*MODELS[network], samples)
    objective = Objective(case[0], LOSS, case[1:], linearize=True)
    exact = diagonal(objective, max_products=objective.n_parameters).values.sum().item()
    plain = 0.0
    for who, asked, call in ways(case, exact):
        found = [call(seed) for seed in range(draws)]
        spent = float(np.mean([products for _, products, _ in found]))
        plain = plain or spent
        error = float(np.sqrt(np.mean([(value / exact - 1) ** 2 for value, _, _ in found])))
        held = [held for *_, held in found if held is not None]
        said = f"{sum(held)} of {draws}" if held else "none"
        yield network, str(samples), who, asked, f"{spent:.0f}", f"{error:.4f}", said, f"{spent / plain:.2f}"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MEASURED, metavar="MODEL")
    parser.add_argument("--samples", type=int, nargs="+", default=[16000])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--table", type=Path, default=TABLE)
    args = parser.parse_args()
    rows = (
        row
        for network in args.models
        for samples in args.samples
        for row in rows_of(network, samples, args.draws)
    )
    write_table(args.table, FIELDS, rows)


if __name__ == "__main__":
    main()
