"""How often `sharpness` misses the highest maximum that an exhaustive search knows, on the stored runs of studies.

    python bench/sharpness_starts.py results/quick results/regularizers --seed 0

For each run of the seed, and for the plain, elementwise and filterwise neighborhoods, the exhaustive search makes whole
ascents from both signs of the gradient and of the 8 top eigenvectors, from the gradients of each class alone, and from
16 random points. `sharpness` is asked twice: with its five directions, and with a memory budget that has room for one.
Writes docs/tables/sharpness-starts.csv: for each neighborhood how many searches converged, how many of them missed the
highest known maximum by more than 3%, by how much at most, and the gradients that they took.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from analysis.run.context import RunContext
from analysis.run.measurements import Subject
from analysis.run.run_data import load_run_data
from analysis.run.training import new_model
from analysis.store.run_file import load_weights, read_config
from analysis.store.table import run_files
from landscape import Objective, sharpness
from landscape.krylov import SymmetricOperator, top_eigenpairs
from landscape.matrices import Hessian
from landscape.perturbations.ascent import Neighborhood, Slope, ascend
from landscape.perturbations.relative_scale import scale_of

TABLE = Path(__file__).resolve().parents[1] / "docs/tables/sharpness-starts.csv"
MISSED = 0.03
EIGENVECTORS = 8
RANDOM = 16


def subjects(root: Path, seed: int) -> Iterator[Subject]:
    """The trained models of a study's runs with this seed."""
    for path in run_files(root):
        stored = read_config(path)
        if stored.config.seed == seed and not stored.diverged:
            data = load_run_data(stored.config, RunContext(root))
            model = new_model(stored.config, data, "weights")
            load_weights(path, model)
            yield Subject(model, stored.config, data)


def exhaustive(objective: Objective, neighborhood: Neighborhood, seed: int) -> float:
    """The largest rise that whole ascents from some fifty starts find."""
    scale = neighborhood.scale
    center, gradient = objective.value_and_gradient()
    slope = neighborhood.slope(gradient)

    def visit(offset: Tensor) -> tuple[float, Tensor]:
        loss, found = objective.value_and_gradient(neighborhood.weights(objective.theta, offset))
        return float(loss - center), neighborhood.slope(found)

    def climb(start: Tensor) -> float:
        return ascend(
            visit,
            Slope(lambda: slope, neighborhood.gain(slope)),
            lambda: neighborhood.border(start),
            neighborhood=neighborhood,
            steps=300,
            tol=0.01,
            rounding=8 * torch.finfo(objective.dtype).eps * abs(float(center)),
        ).rise

    hessian, rows = Hessian(objective), scale if isinstance(scale, float) else scale[:, None]
    scaled = SymmetricOperator(
        lambda block: rows * (hessian @ (rows * block)),
        objective.n_parameters,
        objective.dtype,
        objective.device,
    )
    generator = torch.Generator().manual_seed(seed)
    vectors = top_eigenpairs(scaled, EIGENVECTORS, tol=0.1, generator=generator).vectors.to(objective.theta)
    starts = [slope, *vectors.T]
    targets = objective.targets
    starts += [
        neighborhood.slope(objective.subset(samples=torch.nonzero(targets == label).flatten()).gradient())
        for label in targets.unique()
    ]
    starts += [torch.randn(slope.shape, generator=generator, dtype=slope.dtype) for _ in range(RANDOM)]
    return max(climb(sign * start) for start in starts for sign in (1.0, -1.0))


def searched(subject: Subject) -> Iterator[dict[str, object]]:
    """One row for each neighborhood and number of directions: what `sharpness` found, and what there is."""
    settings, objective = subject.settings, subject.objectives["observed"]
    small = Objective(
        subject.model,
        objective.loss_fn,
        (objective.inputs, objective.targets),
        memory_budget=12 * objective.memory.vector,
    )
    for adaptive, rho in (
        ("none", settings.sharpness_rho),
        ("elementwise", settings.sharpness_elementwise_rho),
        ("filter", settings.sharpness_filter_rho),
    ):
        neighborhood = Neighborhood(rho, "l2", scale_of(objective, adaptive))
        known = exhaustive(objective, neighborhood, subject.seed)
        found = [
            sharpness(each, rho=rho, adaptive=adaptive, steps=settings.sharpness_steps, seed=subject.seed)
            for each in (objective, small)
        ]
        highest = max(known, *(each.value for each in found))
        for each in found:
            yield {
                "adaptive": adaptive,
                "directions": each.directions,
                "missed": 1 - each.value / highest,
                "gradients": each.gradients,
                "converged": each.converged,
            }


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = pd.DataFrame(
        row
        for root in options.results
        for subject in subjects(root, options.seed)
        for row in searched(subject)
    )
    rows = rows[rows["converged"]]
    table = rows.groupby(["adaptive", "directions"], sort=False).agg(
        searches=("missed", "size"),
        missed=("missed", lambda shares: (shares > MISSED).sum()),
        worst=("missed", "max"),
        gradients=("gradients", "median"),
    )
    table.round(3).to_csv(TABLE)
    print(table)


if __name__ == "__main__":
    main()
