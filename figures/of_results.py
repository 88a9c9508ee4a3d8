"""The figure of one result: what `result.plot()` shows."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.distributions import distributions
from figures.estimates import estimates
from figures.lines import lines
from figures.paths import paths
from figures.spectral_densities import spectral_densities
from figures.surfaces import contours
from figures.topology import basins
from figures.tracks import tracks
from figures.trajectories import trajectories
from landscape import (
    GroupCurvature,
    LayerTraces,
    Line,
    MatrixDiagonal,
    Path,
    SampleCurvature,
    SamplingError,
    SpectralDensity,
    Surface,
    TopEigenvalues,
    Topology,
    TopologyDraws,
    Track,
    Trajectory,
)

TWO_ERRORS = "Bars: two standard errors."
MATRICES = {
    "hessian": "Hessian",
    "gauss-newton": "Gauss-Newton matrix",
    "functional": "functional Hessian",
    "empirical-fisher": "empirical Fisher matrix",
}


@singledispatch
def draw(result: object, **options: Any) -> Figure:  # noqa: ARG001
    """The figure of one result.

    Args:
        result: of a class that is registered below.
        options: of the function that draws it, such as `width=` and `style=`.

    Raises:
        TypeError: no function draws results of this class.
    """
    raise TypeError(
        f"plot: nothing draws a {type(result).__name__}; register a function with figures.draw.register"
    )


@draw.register
def _(result: Surface, **options: Any) -> Figure:
    return contours([("", result)], **{"loss_name": "mean loss", "about": "", **options})


@draw.register
def _(result: Line, **options: Any) -> Figure:
    return lines([("", [("", result)])], **{"about": "", **options})


@draw.register
def _(result: Path, **options: Any) -> Figure:
    return paths([("path", result)], **{"loss_name": "mean loss", "about": "", **options})


@draw.register
def _(result: Trajectory, **options: Any) -> Figure:
    return trajectories([("training", result)], **options)


@draw.register
def _(result: SpectralDensity, **options: Any) -> Figure:
    return spectral_densities(
        [("", result)], **{"matrix_name": _matrix(result.matrix), "about": "", **options}
    )


@draw.register
def _(result: Track, **options: Any) -> Figure:
    return tracks(result, **options)


@draw.register
def _(result: TopEigenvalues, **options: Any) -> Figure:
    names = [
        f"{number}" if converged else f"{number} (not converged)"
        for number, converged in enumerate(result.converged, 1)
    ]
    about = "Bars: the errors, three residuals; one that is hidden by its dot is smaller than that."
    named = {"quantity": f"eigenvalue of the {_matrix(result.matrix)}", "about": about}
    low, high = result.values - result.errors, result.values + result.errors
    return estimates(names, result.values, low, high, **{**named, **options})


@draw.register
def _(result: Topology, **options: Any) -> Figure:
    return basins(result, **options)


@draw.register
def _(result: TopologyDraws, **options: Any) -> Figure:
    """The draws' own range beside the mean: numbers of different kinds are drawn as shares of their mean."""
    scale = np.where(result.mean > 0, result.mean, 1.0)
    named = {
        "quantity": "share of the mean over the draws",
        "about": f"{len(result.values)} draws. Bars: 95% intervals of the means.",
    }
    names = [f"{name}: {mean:.3g}" for name, mean in zip(result.quantity, result.mean, strict=True)]
    return estimates(
        names, result.mean / scale, result.low / scale, result.high / scale, **{**named, **options}
    )


@draw.register
def _(result: LayerTraces, **options: Any) -> Figure:
    named = {"quantity": f"trace of the layer's block of the {_matrix(result.matrix)}", "about": TWO_ERRORS}
    low, high = result.values - 2 * result.standard_errors, result.values + 2 * result.standard_errors
    return estimates(list(map(str, result.layer)), result.values, low, high, **{**named, **options})


@draw.register
def _(result: SamplingError, **options: Any) -> Figure:
    named = {
        "quantity": "value on other samples",
        "about": "Dot: as measured. Bars: 95% intervals, biases taken off.",
    }
    return estimates(
        list(map(str, result.quantity)), result.values, result.low, result.high, **{**named, **options}
    )


@draw.register
def _(result: GroupCurvature, **options: Any) -> Figure:
    """One measure, the loss if none is named by `measure=`."""
    measure = str(options.pop("measure", "loss"))
    known = list(map(str, result.measure))
    if measure not in known:
        raise ValueError(f"measure: must be one of {', '.join(known)}, got {measure!r}")
    column = known.index(measure)
    mean, error = result.mean[:, column], result.sampling_error[:, column]
    named = {"quantity": f"mean {measure.replace('_', ' ')}", "about": TWO_ERRORS}
    names = [f"group {group}" for group in result.group]
    return estimates(names, mean, mean - 2 * error, mean + 2 * error, **{**named, **options})


@draw.register
def _(result: SampleCurvature, **options: Any) -> Figure:
    unit = f" ({result.loss_unit})" if result.loss_unit else ""
    named = [(f"loss{unit}", result.loss)] + [
        (name.replace("_", " "), getattr(result, name))
        for name in result.measures
        if np.isfinite(getattr(result, name)).any()
    ]
    return distributions(named, **{"counted": "samples", "about": "", **options})


@draw.register
def _(result: MatrixDiagonal, **options: Any) -> Figure:
    named = [(f"diagonal of the {_matrix(result.matrix)}", result.values)]
    return distributions(named, **{"counted": "weights", "about": "", **options})


def _matrix(name: str) -> str:
    return MATRICES.get(name, f"{name} matrix")
