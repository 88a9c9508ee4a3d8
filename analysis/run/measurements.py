"""What is measured of a trained model: curvature, sharpness, lines and surfaces."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from landscape import (
    Objective,
    Sharpness,
    TopEigenvalues,
    filter_normalized_directions,
    lines,
    relative_flatness,
    sharpness,
    spectral_density,
    surfaces,
    top_eigenvalues,
    trace,
)
from ncsam import NoisyLabels, Split

LOSSES = ("observed", "clean", "test")
"""The training loss with observed labels, the same with true labels, and the test loss."""


def subset(count: int, samples: int, seed: int) -> Tensor:
    """Positions of at most `samples` of `count` samples, drawn without replacement, ascending."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[:samples].sort().values


def measure(
    model: nn.Module,
    loss_fn: Any,
    train: Split,
    labels: NoisyLabels,
    test: Split,
    settings: dict[str, Any],
    *,
    seed: int,
    with_surfaces: bool,
) -> dict[str, Any]:
    """All measurements of one model.

    Args:
        model: trained.
        loss_fn: (outputs, targets) -> mean loss.
        train: the training samples to measure on.
        labels: theirs.
        test: the test samples to measure on.
        settings: a study's `measure` table.
        seed: of probes, start vectors and directions; the directions are the same draw for every model.
        with_surfaces: lines, planes and the spectral density too.

    Returns:
        Group name in the run file -> result of `landscape`.
    """
    data = {
        "observed": (train.inputs, labels.observed),
        "clean": (train.inputs, labels.clean),
        "test": (test.inputs, test.targets),
    }
    objectives = {name: Objective(model, loss_fn, pair, chunk_size=1000) for name, pair in data.items()}
    results: dict[str, Any] = {}
    for name in ("observed", "clean"):
        objective = objectives[name]
        eigen = top_eigenvalues(objective, settings["eigenvalues"], tol=settings["eigenvalue_tol"], seed=seed)
        # the weights are in the file: vectors as long as the weights can be computed again
        results[f"curvature/{name}/top_eigenvalues"] = dataclasses.replace(eigen, vectors=None)
        results[f"curvature/{name}/trace"] = trace(
            objective,
            rtol=settings["trace_rtol"],
            max_products=settings["trace_max_products"],
            deflate=eigen,
            seed=seed,
        )
        results |= {
            f"{group}/{name}": worst
            for group, worst in _worst_cases(objective, eigen, settings, seed).items()
        }
        results[f"flatness/{name}"] = relative_flatness(
            objective, rtol=settings["trace_rtol"], max_products=settings["trace_max_products"], seed=seed
        )
    if with_surfaces:
        directions = filter_normalized_directions(objectives["observed"], 2, seed=0)
        results["curvature/observed/spectral_density"] = spectral_density(
            objectives["observed"],
            steps=settings["density_steps"],
            probes=settings["density_probes"],
            seed=seed,
        )
        extent = settings["surface_extent"]
        batch_norm = settings["surface_batch_norm"]
        profiles = lines(
            objectives, directions, extent=extent, steps=settings["line_steps"], batch_norm=batch_norm
        )
        results |= {f"surface/line-{name}": profile for name, profile in profiles.items()}
        planes = surfaces(
            objectives,
            directions,
            extent=extent,
            steps=settings["surface_steps"],
            adaptive=settings["surface_adaptive"],
            batch_norm=batch_norm,
        )
        results |= {f"surface/plane-{name}": plane for name, plane in planes.items()}
    return results


def _worst_cases(
    objective: Objective, eigen: TopEigenvalues, settings: dict[str, Any], seed: int
) -> dict[str, Sharpness]:
    """Converged worst-case sharpness: plain, and relative to each weight and to each filter."""
    found = {
        "sharpness": sharpness(
            objective,
            rho=settings["sharpness_rho"],
            steps=settings["sharpness_steps"],
            start=eigen,
            seed=seed,
        )
    }
    for adaptive in ("elementwise", "filter"):
        found[f"sharpness_{adaptive}"] = sharpness(
            objective,
            rho=settings[f"sharpness_{adaptive}_rho"],
            adaptive=adaptive,
            steps=settings["sharpness_steps"],
            seed=seed,
        )
    # as with eigenvectors: as long as the weights, and found again from them
    return {name: dataclasses.replace(worst, offset=None) for name, worst in found.items()}
