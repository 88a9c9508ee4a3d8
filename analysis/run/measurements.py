"""The measures of a trained model: curvature, sharpness, steps, single samples, spectral density, planes, Theorem 1.

Each measure names the settings that decide its numbers, and the groups of the run file that it fills. So one measure
can be taken again without the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from analysis import bound
from analysis.plan.errors import check_known
from analysis.plan.seeds import derived_seed
from analysis.run.subject import LOSSES, TRAINING_LOSSES, Subject
from analysis.store import OF_SAMPLES
from landscape import (
    Sharpness,
    critical_sharpness,
    curvature_parts,
    curvature_parts_by_labels,
    gradient_noise,
    lines,
    relative_flatness,
    sample_curvature,
    sharpness,
    spectral_density,
    surfaces,
    trace,
)

LOSSES_OF_PARTS = (*TRAINING_LOSSES, "observed_right", "observed_wrong")
"""The last two are losses of the rightly and of the wrongly labeled samples, if there are both."""
DENSITY = "curvature/observed/spectral_density"
SAMPLES = "samples/observed"
GRADIENT_NOISE = "gradient_noise/observed"

SAMPLE_PROBES = 8
"""Random signs for each sample's curvature in the input."""
NOISE_PIECES = 100
"""Pieces of the measured samples whose gradients are compared."""
CRITICAL_TOL = 0.02
"""Distance of the bounds of a critical learning rate, as a share of the rate."""
CRITICAL_PASSES = 60
"""Most forward passes. Of these 20 may only find that the rate is far below the first one."""

Results = dict[str, Any]
"""Group of the run file -> result that `landscape.save` takes."""


@dataclass(frozen=True)
class Measure:
    """A measure of every final run.

    Attributes:
        name: name of the measure for `ncsam measure --only`.
        of: the trained model -> results.
        groups: groups of the run file into which the results are written.
        settings: keys of a study's `measure` on which the results depend.
        version: it is raised when the same settings give other or further results.
    """

    name: str
    of: Callable[[Subject], Results]
    groups: tuple[str, ...]
    settings: tuple[str, ...]
    version: int = 1


def _curvature(subject: Subject) -> Results:
    settings = subject.settings
    traces = subject.of_training_losses(
        lambda name: trace(
            subject.objectives[name],
            rtol=settings.trace_rtol,
            max_products=settings.trace_max_products,
            deflate=subject.eigenpairs[name],
            seed=subject.seed,
        )
    )
    results: Results = {f"curvature/{name}/trace": found for name, found in traces.items()}
    for name, eigen in subject.eigenpairs.items():
        # vectors as long as the weights are left out; the file holds the weights, from which they can be computed again
        results[f"curvature/{name}/top_eigenvalues"] = dataclasses.replace(eigen, vectors=None)
    return results


def _sharpness(subject: Subject) -> Results:
    """Converged worst-case sharpness: plain, relative to each weight, and relative to each filter."""
    settings = subject.settings

    def measured(name: str) -> dict[str, Sharpness]:
        ascend = partial(
            sharpness,
            subject.objectives[name],
            steps=settings.sharpness_steps,
            start=subject.eigenpairs[name],
            seed=subject.seed,
        )
        return {
            "sharpness": ascend(rho=settings.sharpness_rho),
            "sharpness_elementwise": ascend(rho=settings.sharpness_elementwise_rho, adaptive="elementwise"),
            "sharpness_filter": ascend(rho=settings.sharpness_filter_rho, adaptive="filter"),
        }

    # offsets are left out as eigenvectors are: they are as long as the weights and can be computed again
    return {
        f"{kind}/{name}": dataclasses.replace(worst, offset=None)
        for name, found in subject.of_training_losses(measured).items()
        for kind, worst in found.items()
    }


def _flatness(subject: Subject) -> Results:
    found = subject.of_training_losses(
        lambda name: relative_flatness(
            subject.objectives[name],
            rtol=subject.settings.trace_rtol,
            max_products=subject.settings.trace_max_products,
            seed=subject.seed,
        )
    )
    return {f"flatness/{name}": flatness for name, flatness in found.items()}


def _critical(subject: Subject) -> Results:
    """How far a gradient step on the observed labels goes before the loss with observed or with true labels rises."""
    step = -subject.objectives["observed"].gradient()
    if not step.any():
        return {}
    found = subject.of_training_losses(
        lambda name: critical_sharpness(
            subject.objectives[name], step, tol=CRITICAL_TOL, max_passes=CRITICAL_PASSES
        )
    )
    return {f"critical_sharpness/{name}": critical for name, critical in found.items()}


def _noise(subject: Subject) -> Results:
    observed = subject.objectives["observed"]
    pieces = min(NOISE_PIECES, observed.n_samples)
    return {GRADIENT_NOISE: gradient_noise(observed, pieces=pieces, seed=subject.seed)} if pieces > 1 else {}


def _samples(subject: Subject) -> Results:
    """The curvature of every sample's own loss, for comparisons of wrong labels with right ones."""
    if not subject.settings.by_sample or not subject.is_wrong.any():
        return {}
    return {
        SAMPLES: sample_curvature(
            subject.objectives["observed"], measures=OF_SAMPLES, probes=SAMPLE_PROBES, seed=subject.seed
        )
    }


def _parts(subject: Subject) -> Results:
    """The parts of the curvature, with observed and true labels, and of rightly and wrongly labeled samples."""
    is_wrong = subject.is_wrong
    observed = subject.objectives["observed"]
    asked: dict[str, Any] = {
        "rtol": subject.settings.trace_rtol,
        "max_products": subject.settings.trace_max_products,
        "seed": subject.seed,
    }
    found = curvature_parts_by_labels({name: subject.objectives[name] for name in TRAINING_LOSSES}, **asked)
    if is_wrong.any() and not is_wrong.all():
        for name, samples in (("observed_right", ~is_wrong), ("observed_wrong", is_wrong)):
            found[name] = curvature_parts(observed.subset(samples=samples), **asked)
    return {f"curvature/{name}/parts": parts for name, parts in found.items()}


def _density(subject: Subject) -> Results:
    if not subject.config.has_surfaces:
        return {}
    return {
        DENSITY: spectral_density(
            subject.objectives["observed"],
            steps=subject.settings.density_steps,
            probes=subject.settings.density_probes,
            seed=subject.seed,
        )
    }


def _surfaces(subject: Subject) -> Results:
    if not subject.config.has_surfaces:
        return {}
    settings = subject.settings
    where: dict[str, Any] = {
        "extent": settings.surface_extent,
        "batch_norm": settings.surface_batch_norm,
    }
    profiles = lines(subject.objectives, subject.directions, steps=settings.line_steps, **where)
    planes = surfaces(
        subject.objectives,
        subject.directions,
        steps=settings.surface_steps,
        adaptive=settings.surface_adaptive,
        **where,
    )
    return {
        **{f"surface/line-{name}": profile for name, profile in profiles.items()},
        **{f"surface/plane-{name}": plane for name, plane in planes.items()},
    }


def _bound(subject: Subject) -> Results:
    if not subject.settings.bound:
        return {}
    data = subject.data
    return bound.measure_bounds(
        subject.model,
        (data.train.inputs, data.labels.observed),
        data.labels.is_wrong,
        (data.held_out.inputs, data.held_out.targets),
        seed=derived_seed(subject.config, "bound"),
    )


OF_SURFACES = ("surface_rates", "surface_seeds")
OF_TRACE = ("trace_rtol", "trace_max_products")
OF_EIGENVALUES = ("eigenvalues", "eigenvalue_tol")
OF_SHARPNESS = ("sharpness_rho", "sharpness_elementwise_rho", "sharpness_filter_rho", "sharpness_steps")
OF_GRIDS = ("surface_extent", "line_steps", "surface_steps", "surface_adaptive", "surface_batch_norm")
PARTS = tuple(f"curvature/{loss}/parts" for loss in LOSSES_OF_PARTS)
FLATNESS = tuple(f"flatness/{loss}" for loss in TRAINING_LOSSES)
CURVATURE = tuple(
    f"curvature/{loss}/{name}" for loss in TRAINING_LOSSES for name in ("top_eigenvalues", "trace")
)
CRITICAL = tuple(f"critical_sharpness/{loss}" for loss in TRAINING_LOSSES)
SHARPNESS = tuple(
    f"{group}/{loss}"
    for group in ("sharpness", "sharpness_elementwise", "sharpness_filter")
    for loss in TRAINING_LOSSES
)
SURFACES = tuple(f"surface/{kind}-{loss}" for kind in ("line", "plane") for loss in LOSSES)
BOUNDS = tuple(f"{group}/{loss}" for group in ("bound", "assumption") for loss in bound.LOSSES)

MEASURES = {
    measure.name: measure
    for measure in (
        Measure("curvature", _curvature, CURVATURE, ("samples", *OF_EIGENVALUES, *OF_TRACE)),
        # the eigenvectors are among the starts of the ascent
        Measure("sharpness", _sharpness, SHARPNESS, ("samples", *OF_EIGENVALUES, *OF_SHARPNESS), version=7),
        # a file that names no version counts as version 1, so a measure that it may lack begins with 2
        Measure("flatness", _flatness, FLATNESS, ("samples", *OF_TRACE), version=2),
        Measure("parts", _parts, PARTS, ("samples", *OF_TRACE), version=3),
        Measure("critical", _critical, CRITICAL, ("samples",), version=3),
        Measure("noise", _noise, (GRADIENT_NOISE,), ("samples",), version=2),
        Measure("samples", _samples, (SAMPLES,), ("samples", "by_sample"), version=2),
        Measure(
            "density", _density, (DENSITY,), ("samples", *OF_SURFACES, "density_steps", "density_probes")
        ),
        Measure("surfaces", _surfaces, SURFACES, ("samples", *OF_SURFACES, *OF_GRIDS)),
        Measure("bound", _bound, BOUNDS, ("bound",), version=4),
    )
}
"""Name -> measure, in the order in which they are taken."""


def measure(subject: Subject, names: Collection[str] | None = None) -> Results:
    """Measures a trained model.

    Args:
        subject: the model with its data and settings.
        names: names of `MEASURES`. All for None, the user's measures included.

    Returns:
        Group of the run file -> result of `landscape`.

    Raises:
        ValueError: a name is unknown.
    """
    names = MEASURES.keys() if names is None else names
    for name in names:
        check_known(name, MEASURES, "names")
    results: Results = {}
    for name, measured in MEASURES.items():
        if name in names:
            results |= measured.of(subject)
    return results
