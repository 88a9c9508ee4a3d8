"""How often a sharpness misses the highest maximum that an exhaustive search knows, on the stored runs of studies.

    python bench/sharpness_starts.py results/quick results/regularizers --seed 0

For each run of the seed, and for the plain, elementwise and filterwise neighborhoods, the exhaustive search makes whole
ascents from both signs of the gradient, of the 8 top eigenvectors, of the gradient of each class's loss, of the
gradient of each class's mean output, and of 16 random points. Three searches are compared with the highest maximum that
is known: `sharpness`; `sharpness` with a memory budget of twelve vectors; and the search without starts for classes,
from five eigenvectors. Writes docs/tables/sharpness-starts.csv: for each neighborhood and search how many searches
converged, how many of them missed the maximum by more than 3%, by how much at most, the gradients that they took, and
the largest share of samples that got one class, at the trained weights and at the highest point found (medians).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from analysis.run.context import RunContext
from analysis.run.run_data import load_run_data
from analysis.run.subject import Subject
from analysis.run.training import new_model
from analysis.store.run_file import load_weights, read_config
from analysis.store.table import run_files
from landscape import Objective, sharpness
from landscape.krylov import SymmetricOperator, top_eigenpairs
from landscape.matrices import Hessian
from landscape.perturbations.ascent import Neighborhood, Slope, ascend
from landscape.perturbations.relative_scale import scale_of
from landscape.perturbations.search import search
from landscape.perturbations.starts import EIGENVECTORS, Starts, starts_of, top_directions

TABLE = Path(__file__).resolve().parents[1] / "docs/tables/sharpness-starts.csv"
MISSED = 0.03
MANY_EIGENVECTORS = 8
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
    """The largest rise that whole ascents from some ninety starts find."""
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
    vectors = top_eigenpairs(scaled, MANY_EIGENVECTORS, tol=0.1, generator=generator).vectors.to(
        objective.theta
    )
    starts = [slope, *vectors.T]
    targets = objective.targets
    starts += [
        neighborhood.slope(objective.subset(samples=torch.nonzero(targets == label).flatten()).gradient())
        for label in targets.unique()
    ]
    starts += [direction() for direction in starts_of(objective, neighborhood, seed=seed).outputs]
    starts += [torch.randn(slope.shape, generator=generator, dtype=slope.dtype) for _ in range(RANDOM)]
    return max(climb(sign * start) for start in starts for sign in (1.0, -1.0))


@dataclass(frozen=True)
class Found:
    """What a search found: the highest rise and its offset, whether it converged, and the gradients spent."""

    value: float
    offset: Tensor
    converged: bool
    gradients: int


def largest_class(objective: Objective, offset: Tensor) -> float:
    """The largest share of samples to which the model gives one class, at an offset of its weights."""
    with torch.no_grad():
        classes = objective.outputs(objective.theta + offset, objective.inputs).argmax(1)
    return float(classes.bincount().max()) / len(classes)


def without_classes(objective: Objective, neighborhood: Neighborhood, *, steps: int, seed: int) -> Found:
    """The search from five eigenvectors, the gradient and random points."""
    before = objective.gradients
    found = search(
        objective,
        neighborhood,
        steps=steps,
        restarts=4,
        tol=0.01,
        seed=seed,
        starts=Starts([], EIGENVECTORS, has_room=True),
        eigenvectors=lambda: top_directions(objective, neighborhood.scale, EIGENVECTORS, seed),
    )
    offset = neighborhood.scale * found.highest.offset
    return Found(found.highest.rise, offset, found.converged, objective.gradients - before)


def searched(subject: Subject) -> Iterator[dict[str, object]]:
    """One row for each neighborhood and search: what it found, and what there is."""
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
        steps, seed = settings.sharpness_steps, subject.seed
        searches = {
            name: sharpness(each, rho=rho, adaptive=adaptive, steps=steps, seed=seed)
            for name, each in (("sharpness", objective), ("little memory", small))
        }
        found = {
            name: Found(each.value, each.offset, each.converged, each.gradients)
            for name, each in searches.items()
        }
        found["no classes"] = without_classes(objective, neighborhood, steps=steps, seed=seed)
        highest = max(known, *(each.value for each in found.values()))
        for name, each in found.items():
            yield {
                "adaptive": adaptive,
                "search": name,
                "missed": 1 - each.value / highest,
                "gradients": each.gradients,
                "converged": each.converged,
                "class_before": largest_class(objective, torch.zeros_like(each.offset)),
                "class_after": largest_class(objective, each.offset),
            }


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = []
    for root in options.results:
        for subject in subjects(root, options.seed):
            found += searched(subject)
            print(f"{len(found)} searches", flush=True)
    rows = pd.DataFrame(found)
    rows = rows[rows["converged"]]
    table = rows.groupby(["adaptive", "search"], sort=False).agg(
        searches=("missed", "size"),
        missed=("missed", lambda shares: (shares > MISSED).sum()),
        worst=("missed", "max"),
        gradients=("gradients", "median"),
        class_before=("class_before", "median"),
        class_after=("class_after", "median"),
    )
    table.round(3).to_csv(TABLE)
    print(table)


if __name__ == "__main__":
    main()
