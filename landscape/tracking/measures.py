"""The measures of a tracker."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

import landscape.curvature.eigenvalues as eigenvalues
import landscape.curvature.gradient_noise as noise
import landscape.curvature.parts as parts
import landscape.curvature.traces as traces
import landscape.perturbations.critical_sharpness as critical
import landscape.perturbations.worst_case as worst_case
from landscape.curvature.eigenvalues import TopEigenvalues
from landscape.loss.objective import Objective

MOST_FOLLOWED = 10
"""The number of successive looks that follow eigenvectors without a search from random vectors."""
MOST_CHANGE, LEAST_COSINE = 0.1, 0.9
"""An eigenvalue is followed if it changed by at most this share, and its eigenvectors have at least this cosine."""

FOLLOWED_PARTS = (
    *("jacobian_trace", "jacobian_trace_error", "jacobian_top", "jacobian_top_error", "uncertainty"),
    *("gauss_newton_trace", "gauss_newton_trace_error", "functional_norm", "functional_norm_error"),
)
"""Fields of `CurvatureParts` that a tracker follows."""

Described = Mapping[str, tuple[str, str]]
"""Name of a metric -> (unit, description)."""


@dataclass(frozen=True)
class Update:
    """One step of the optimizer, for one objective.

    Attributes:
        before: the objective at the weights before the step.
        change: (n,), the change of the weights by the step.
        learning_rate: learning rate of the step.
    """

    before: Objective
    change: Tensor
    learning_rate: float


@dataclass
class Kept:
    """The state of a measure for one objective, from look to look, in one tracker.

    Attributes:
        value: anything; None before the measure's first look.
    """

    value: Any = None


@dataclass(frozen=True)
class Look:
    """A training at one moment, for one of the objectives, as a measure sees it.

    Attributes:
        objective: the objective at the weights of the moment.
        name: name of the objective.
        first: (n,), the weights at the tracker's beginning.
        previous: (n,), the weights at the measure's last look; at its first look those at the tracker's beginning.
        update: the last step of the optimizer, if the measure asks for it.
        seed: seed of all draws at this look.
        kept: the measure's state for its next look at the objective.
    """

    objective: Objective
    name: str
    first: Tensor
    previous: Tensor
    update: Update | None
    seed: int
    kept: Kept


@dataclass(frozen=True)
class Measure:
    """A measure of a tracker.

    Attributes:
        name: name of the measure.
        take: (moment) -> numbers by metric; NaN for a number that is not defined.
        metrics: the metrics that `take` returns.
        forecast: expected cost of the first look, in gradients over the objective's data.
        needs_update: whether the measure reads the last step. The tracker then keeps the weights before each step.
        keeps_weights: whether the measure reads the weights of its last look.
    """

    name: str
    take: Callable[[Look], dict[str, float]]
    metrics: Described
    forecast: float
    needs_update: bool = False
    keeps_weights: bool = False


def loss() -> Measure:
    """The mean loss and the accuracy; one forward pass."""

    def take(look: Look) -> dict[str, float]:
        found = look.objective.evaluate()
        return {"loss": found.loss, "accuracy": found.accuracy}

    metrics = {"loss": ("", "mean loss"), "accuracy": ("", "accuracy; NaN where targets are not classes")}
    return Measure("loss", take, metrics, 0.5)


def top_eigenvalues(
    k: int = 1, *, tol: float = 0.1, max_products: int | None = None, matrix: str = "hessian"
) -> Measure:
    """The k largest eigenvalues of the Hessian, each with its residual and whether the residual is within `tol`.

    The first look searches from random vectors. Each later look begins at the eigenvectors of the last one. If the
    landscape has changed little, an eigenvalue then takes 3 or 4 products. If it has changed much, another eigenvalue
    may have become the largest. So if an eigenvalue changed by more than a tenth, or its eigenvector turned by more
    than 25 degrees, the look searches from random vectors again. Each eleventh look does so in any case.

    Args:
        k: number of eigenvalues.
        tol: largest residual, relative to the eigenvalue. The error of the value is of second order in the residual.
        max_products: most products of a look. The default of `landscape.top_eigenvalues` is 40 k + 60.
        matrix: as for `landscape.top_eigenvalues`.
    """
    search = partial(eigenvalues.top_eigenvalues, k=k, tol=tol, max_products=max_products, matrix=matrix)

    def take(look: Look) -> dict[str, float]:
        last: _Followed | None = look.kept.value
        found, spent, looks = None, 0, 0
        if last is not None and last.looks < MOST_FOLLOWED:
            found = search(look.objective, block=1, start=last.pairs, seed=look.seed)
            spent, looks = found.products, last.looks + 1
        if found is None or last is None or not _moved_little(last.pairs, found):
            width = min(k + 2, look.objective.n_parameters)
            found = search(look.objective, block=width, seed=look.seed)
            spent, looks = spent + found.products, 0
        look.kept.value = _Followed(found, looks)
        columns = zip(found.values, found.residuals, found.converged, strict=True)
        values: dict[str, float] = {}
        for number, (value, residual, converged) in enumerate(columns, 1):
            values |= {
                _numbered("top_eigenvalue", number): float(value),
                _numbered("top_eigenvalue_residual", number): float(residual),
                _numbered("top_eigenvalue_converged", number): float(converged),
            }
        return values | {"top_eigenvalue_products": float(spent)}

    described: dict[str, tuple[str, str]] = {}
    for number in range(1, k + 1):
        described |= {
            _numbered("top_eigenvalue", number): ("", f"eigenvalue {number} of the {matrix} matrix"),
            _numbered("top_eigenvalue_residual", number): ("", f"residual norm of eigenvalue {number}"),
            _numbered("top_eigenvalue_converged", number): (
                "",
                f"1 where that residual is within {tol:g} of the eigenvalue, else 0",
            ),
        }
    described["top_eigenvalue_products"] = ("products", "products spent on the eigenvalues")
    return Measure("top_eigenvalues", take, described, 2.0 * (20 + 10 * k))


@dataclass(frozen=True)
class _Followed:
    """Eigenpairs of a look, and the number of looks since the last search from random vectors."""

    pairs: TopEigenvalues
    looks: int


def _moved_little(last: TopEigenvalues, found: TopEigenvalues) -> bool:
    """Whether the eigenpairs changed little since the last look."""
    assert last.vectors is not None
    assert found.vectors is not None
    cosines = (last.vectors * found.vectors).sum(0).abs().cpu().numpy()
    changes = np.abs(found.values - last.values)
    return bool((cosines >= LEAST_COSINE).all() and (changes <= MOST_CHANGE * np.abs(found.values)).all())


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"


def trace(*, rtol: float = 0.1, max_products: int = 40, matrix: str = "hessian") -> Measure:
    """The trace of the Hessian with its 95% interval."""

    def take(look: Look) -> dict[str, float]:
        found = traces.trace(
            look.objective, rtol=rtol, max_products=max_products, matrix=matrix, seed=look.seed
        )
        return {
            "trace": found.value,
            "trace_low": found.low,
            "trace_high": found.high,
            "trace_converged": float(found.converged),
        }

    metrics = {
        "trace": ("", f"trace of the {matrix} matrix"),
        "trace_low": ("", "lower end of the trace's 95% interval"),
        "trace_high": ("", "upper end of the trace's 95% interval"),
        "trace_converged": ("", f"1 where the interval is within {2 * rtol:g} of the trace, else 0"),
    }
    return Measure("trace", take, metrics, 2.0 * max_products)


def layer_traces(
    layers: Sequence[str], *, rtol: float = 0.1, max_products: int = 40, matrix: str = "hessian"
) -> Measure:
    """The trace of each parameter tensor's block of the Hessian.

    Args:
        layers: names of the objective's parameters, `objective.names`.
        rtol, max_products, matrix: as for `landscape.layer_traces`.
    """

    def take(look: Look) -> dict[str, float]:
        found = traces.layer_traces(
            look.objective, rtol=rtol, max_products=max_products, matrix=matrix, seed=look.seed
        )
        values = {"layer_traces_converged": float(found.converged)}
        for layer, value, error in zip(found.layer, found.values, found.standard_errors, strict=True):
            values[f"trace_of_{layer}"] = float(value)
            values[f"trace_of_{layer}_error"] = float(error)
        return values

    metrics = {"layer_traces_converged": ("", f"1 where every interval is within {2 * rtol:g} of the trace")}
    for layer in layers:
        metrics[f"trace_of_{layer}"] = ("", f"trace of the block of {layer}")
        metrics[f"trace_of_{layer}_error"] = ("", f"standard error of the trace of the block of {layer}")
    return Measure("layer_traces", take, metrics, 2.0 * max_products)


def sharpness(*, rho: float = 0.05, norm: str = "l2", adaptive: str = "none") -> Measure:
    """The largest rise of the loss in the ball, by ascents; NaN if the ascents did not converge."""

    def take(look: Look) -> dict[str, float]:
        found = worst_case.sharpness(look.objective, rho=rho, norm=norm, adaptive=adaptive, seed=look.seed)
        return {"sharpness": found.value if found.converged else math.nan}

    words = f"largest rise of the loss within {rho:g} of the weights; NaN where the search did not converge"
    return Measure("sharpness", take, {"sharpness": ("", words)}, 80.0)


def critical_sharpness(*, tol: float = 0.1) -> Measure:
    """The smallest learning rate along the last update at which the loss rises (`landscape.critical_sharpness`).

    If the objective's loss is not the trained one, such as the loss of the clean labels, the number is the relative
    critical sharpness. Each look begins at the critical learning rate of the last one.
    """

    def take(look: Look) -> dict[str, float]:
        update = look.update
        if update is None or not bool(update.change.any()):
            return dict.fromkeys(metrics, math.nan)
        found = critical.critical_sharpness(
            update.before,
            update.change,
            learning_rate=update.learning_rate,
            guess=look.kept.value,
            tol=tol,
        )
        if found.converged:
            look.kept.value = found.learning_rate
        return {
            "critical_sharpness": found.value,
            "critical_learning_rate": found.learning_rate,
            "critical_steps": found.steps,
            "critical_converged": float(found.converged),
            "critical_passes": float(found.passes),
        }

    metrics = {
        "critical_sharpness": (
            "",
            "2 / critical learning rate; infinite where the loss rises at once; NaN where rounding hides it",
        ),
        "critical_learning_rate": (
            "",
            "smallest learning rate along the last update at which the loss rises",
        ),
        "critical_steps": ("updates", "the same as a multiple of the last update"),
        "critical_converged": ("", f"1 where the critical learning rate is known to {tol:g} of it, else 0"),
        "critical_passes": ("passes", "forward passes spent on the critical learning rate"),
    }
    return Measure("critical_sharpness", take, metrics, 4.0, needs_update=True)


def curvature_parts(*, rtol: float = 0.1, tol: float = 0.1, max_products: int = 100) -> Measure:
    """The parts of a cross-entropy's curvature (`landscape.curvature_parts`), of which only one depends on the labels.

    Args:
        rtol, tol, max_products: as for `landscape.curvature_parts`.
    """
    fields = {field.name: field.metadata for field in dataclasses.fields(parts.CurvatureParts)}
    metrics = {name: (fields[name]["unit"], fields[name]["description"]) for name in FOLLOWED_PARTS}
    metrics["curvature_parts_converged"] = ("", "1 where every part is within its tolerance, else 0")

    def take(look: Look) -> dict[str, float]:
        found = parts.curvature_parts(
            look.objective, rtol=rtol, tol=tol, max_products=max_products, seed=look.seed
        )
        values = {name: float(getattr(found, name)) for name in FOLLOWED_PARTS}
        return values | {"curvature_parts_converged": float(found.converged)}

    return Measure("curvature_parts", take, metrics, 300.0)


def gradient_noise(*, pieces: int = 32) -> Measure:
    """The trace of the covariance of the samples' gradients, and the simple noise scale."""

    def take(look: Look) -> dict[str, float]:
        found = noise.gradient_noise(look.objective, pieces=pieces, seed=look.seed)
        return {
            "gradient_norm": found.gradient_norm,
            "gradient_noise": found.value,
            "gradient_noise_error": found.standard_error,
            "noise_scale": found.noise_scale,
        }

    metrics = {
        "gradient_norm": ("", "norm of the mean gradient"),
        "gradient_noise": ("", "trace of the covariance of single samples' gradients"),
        "gradient_noise_error": ("", "standard error of the gradient noise"),
        "noise_scale": ("samples", "gradient noise by the squared norm of the true gradient"),
    }
    return Measure("gradient_noise", take, metrics, 3.0)


def movement() -> Measure:
    """How far the weights have moved: in the last update, since the last look, and since the beginning."""

    def take(look: Look) -> dict[str, float]:
        now = look.objective.theta.double()
        return {
            "update_norm": float(look.update.change.double().norm()) if look.update else math.nan,
            "distance_since_last_look": float((now - look.previous.double()).norm()),
            "distance_from_beginning": float((now - look.first.double()).norm()),
        }

    metrics = {
        "update_norm": ("", "l2 norm of the last update"),
        "distance_since_last_look": ("", "l2 distance from the weights at this measure's last look"),
        "distance_from_beginning": ("", "l2 distance from the weights at the tracker's beginning"),
    }
    return Measure("movement", take, metrics, 0.1, needs_update=True, keeps_weights=True)


BY_NAME: dict[str, Callable[[], Measure]] = {
    "loss": loss,
    "top_eigenvalues": top_eigenvalues,
    "trace": trace,
    "sharpness": sharpness,
    "critical_sharpness": critical_sharpness,
    "gradient_noise": gradient_noise,
    "curvature_parts": curvature_parts,
    "movement": movement,
}
"""The measures without options, by the names that `Tracker(measures=[...])` takes."""


def measure_named(name: str, layers: Sequence[str]) -> Measure:
    """The measure of this name, with its defaults.

    Args:
        name: one of `BY_NAME`, or `"layer_traces"`.
        layers: names of the objectives' parameters, `objective.names`.

    Raises:
        ValueError: unknown name.
    """
    if name == "layer_traces":
        return layer_traces(layers)
    if name not in BY_NAME:
        raise ValueError(f"measures: must be of {', '.join([*BY_NAME, 'layer_traces'])}, got {name!r}")
    return BY_NAME[name]()
