"""The parts of a cross-entropy's curvature: how fast outputs move, how uncertain they are, and the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.eigenvalues import TopEigenvalues, top_eigenvalues
from landscape.curvature.plain_mean import check_that_it_is_a_plain_mean
from landscape.curvature.traces import VECTORS, TraceEstimate, trace
from landscape.data.class_scores import are_class_scores
from landscape.guards.agreement import agree_within
from landscape.loss.objective import Objective
from landscape.loss.one_model import check_one_model
from landscape.loss.wrapped import of_objective
from landscape.progress import Progress
from landscape.results.fields import described
from landscape.results.registry import result
from landscape.results.shown import Result

ROUNDING = 1e-3
"""Share of the largest slope by which two ways to compute cross-entropy may differ."""

ERROR = "standard error of that {}, a quarter of the width of its 95% interval over probes"
"""What is said of an error: two of them hold the number in 95% of draws, though probes are few and end early."""


@result
class CurvatureParts(Result):
    """Jacobian, uncertainty, Gauss-Newton matrix and functional Hessian of one loss, each with its error.

    Two errors hold a trace or a norm in about 95% of draws; it converged if its error is within the tolerance.

    The Hessian of a mean cross-entropy is the Gauss-Newton matrix, mean J_i^T (diag p_i - p_i p_i^T) J_i, plus the
    functional Hessian (Singh et al. 2021). The Gauss-Newton matrix grows with the outputs' Jacobian J and with the
    uncertainty of the predictions p, and does not depend on the labels. Only the functional Hessian depends on them.
    """

    jacobian_trace: float = described("trace of mean J^T J: mean squared norm of a sample's Jacobian")
    jacobian_trace_error: float = described(ERROR.format("trace"))
    jacobian_top: float = described("largest eigenvalue of mean J^T J")
    jacobian_top_error: float = described("error of that eigenvalue")
    uncertainty: float = described("mean of 1 - sum of squared probabilities: 0 sure, 1 - 1/classes unsure")
    gauss_newton_trace: float = described("trace of the Gauss-Newton matrix")
    gauss_newton_trace_error: float = described(ERROR.format("trace"))
    functional_norm: float = described("Frobenius norm of the functional Hessian")
    functional_norm_error: float = described(ERROR.format("norm"))
    functional_smallest: float = described("smallest eigenvalue of the functional Hessian")
    functional_smallest_error: float = described("error of that eigenvalue")
    converged: bool = described("traces and norm are within their tolerance, and both eigenvalues were found")
    products: int = described("matrix-vector products spent", unit="products")
    samples: int = described("samples in the mean loss")


def half_squared_outputs(outputs: Tensor, _: Tensor) -> Tensor:
    """The mean over samples of ||outputs||^2 / 2, whose Gauss-Newton matrix is the mean of J^T J."""
    return outputs.square().flatten(1).sum(1).mean() / 2


def impurity(outputs: Tensor, _: Tensor) -> Tensor:
    """The mean over samples of 1 - sum p^2, the Gini impurity of the predicted probabilities."""
    return (1 - outputs.softmax(1).square().sum(1)).mean()


@of_objective
def curvature_parts(
    objective: Objective,
    *,
    rtol: float = 0.05,
    tol: float = 0.03,
    max_products: int = 100,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> CurvatureParts:
    """Decomposes the curvature of a cross-entropy on class scores.

    Args:
        objective: its loss must be the mean cross-entropy of outputs (samples, classes).
        rtol: relative accuracy of the traces; see `trace`. The norm, which costs less, is found to half of it.
        tol: relative residual of the eigenvalues; their error is of second order in the residual.
        max_products: most products that each estimate may spend.
        seed: seed of probes and start vectors.
        progress: as for `trace`, of each of the five estimates in turn.

    Raises:
        ValueError: the loss is not the mean cross-entropy of class scores, or the memory budget is too small.
    """
    asked = _Asked(rtol, tol, max_products, seed, progress)
    return _with_labels(objective, _without_labels(objective, asked), asked)


@of_objective
def curvature_parts_by_labels(
    objectives: Mapping[str, Objective],
    *,
    rtol: float = 0.05,
    tol: float = 0.03,
    max_products: int = 100,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> dict[str, CurvatureParts]:
    """The parts of several cross-entropies of one model and the same inputs, which differ in the labels alone.

    Jacobian, uncertainty and Gauss-Newton matrix do not depend on the labels. They are measured once, and their
    products are those of the first objective. An objective that has two names is measured once.

    Args:
        objectives: the losses by name.
        rtol, tol, max_products, seed, progress: as for `curvature_parts`.

    Raises:
        ValueError: as for `curvature_parts`, or the objectives are none, or have other models, weights or inputs.
    """
    asked = _Asked(rtol, tol, max_products, seed, progress)
    _check_that_labels_differ_alone(objectives)
    shared = _without_labels(next(iter(objectives.values())), asked)
    found: dict[Objective, CurvatureParts] = {}
    for objective in objectives.values():
        if objective not in found:
            found[objective] = _with_labels(objective, shared, asked)
        shared = replace(shared, products=0)
    return {name: found[objective] for name, objective in objectives.items()}


@dataclass(frozen=True)
class _Asked:
    """The options of `curvature_parts`."""

    rtol: float
    tol: float
    max_products: int
    seed: int
    progress: Progress | bool | None

    @property
    def of_all(self) -> dict[str, Any]:
        """The options of every estimate."""
        return {"max_products": self.max_products, "seed": self.seed, "progress": self.progress}


@dataclass(frozen=True)
class _WithoutLabels:
    """The parts that no label enters, and the products that they cost."""

    top: TopEigenvalues
    jacobian: TraceEstimate
    gauss_newton: TraceEstimate
    uncertainty: float
    products: int

    @property
    def converged(self) -> bool:
        """Whether all of them are known to the tolerance."""
        return self.jacobian.converged and self.gauss_newton.converged and bool(np.all(self.top.converged))


def _without_labels(objective: Objective, asked: _Asked) -> _WithoutLabels:
    # its traces need the most
    objective.memory.check_room(VECTORS, "curvature_parts", in_float64=True)
    _check_that_it_is_cross_entropy(objective)
    jacobian = _with_loss(objective, half_squared_outputs)
    # the largest eigenvalues of J^T J lie far above the others; deflation makes their part of the trace exact
    top = top_eigenvalues(jacobian, 1, matrix="gauss-newton", tol=asked.tol, **asked.of_all)
    of_jacobian = trace(jacobian, matrix="gauss-newton", rtol=asked.rtol, deflate=top, **asked.of_all)
    gauss_newton = trace(objective, matrix="gauss-newton", rtol=asked.rtol, **asked.of_all)
    return _WithoutLabels(
        top,
        of_jacobian,
        gauss_newton,
        _with_loss(objective, impurity).value(),
        top.products + of_jacobian.products + gauss_newton.products,
    )


def _with_labels(objective: Objective, shared: _WithoutLabels, asked: _Asked) -> CurvatureParts:
    """All parts, given those that no label enters."""
    # the trace is near 0, so that a relative accuracy of it makes no sense; only the norm is used
    size = trace(objective, matrix="functional", goal="norm", rtol=asked.rtol / 2, **asked.of_all)
    smallest = top_eigenvalues(
        objective, 1, which="smallest", matrix="functional", tol=asked.tol, **asked.of_all
    )
    functional, functional_error = _norm(size)
    return CurvatureParts(
        jacobian_trace=shared.jacobian.value,
        jacobian_trace_error=shared.jacobian.standard_error,
        jacobian_top=float(shared.top.values[0]),
        jacobian_top_error=float(shared.top.errors[0]),
        uncertainty=shared.uncertainty,
        gauss_newton_trace=shared.gauss_newton.value,
        gauss_newton_trace_error=shared.gauss_newton.standard_error,
        functional_norm=functional,
        functional_norm_error=functional_error,
        functional_smallest=float(smallest.values[0]),
        functional_smallest_error=float(smallest.errors[0]),
        converged=shared.converged and size.converged and bool(np.all(smallest.converged)),
        products=shared.products + size.products + smallest.products,
        samples=objective.n_samples,
    )


def _check_that_labels_differ_alone(objectives: Mapping[str, Objective]) -> None:
    check_one_model(objectives)
    for objective in objectives.values():
        _check_that_it_is_cross_entropy(objective)
    (first_name, first), *others = objectives.items()
    with first.ranks.together():
        for name, other in others:
            if first.inputs.shape != other.inputs.shape or not torch.equal(
                first.inputs, other.inputs.to(first.inputs)
            ):
                raise ValueError(
                    f"objectives: {name!r} has other inputs than {first_name!r}; the losses may differ in the labels "
                    "alone; measure others by curvature_parts"
                )


def _norm(estimate: TraceEstimate) -> tuple[float, float]:
    """The Frobenius norm and its standard error, from the squared norm and its standard error."""
    if not estimate.squared_norm > 0:
        return (0.0, 0.0) if estimate.squared_norm == 0 else (math.nan, math.nan)
    norm = math.sqrt(estimate.squared_norm)
    return norm, estimate.squared_norm_error / (2 * norm)


def _with_loss(objective: Objective, loss_fn: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """The objective of the same model, parameters and data with another loss."""
    return Objective(
        objective.independent_model(),
        loss_fn,
        (objective.inputs, objective.targets),
        chunk_size=objective.chunk_size,
        memory_budget=objective.memory_budget,
        linearize=objective.linearize,
        process_group=objective.process_group,
    )


def _check_that_it_is_cross_entropy(objective: Objective) -> None:
    check_that_it_is_a_plain_mean(objective, "objective", "a decomposition")
    with objective.ranks.together():
        if not all(_is_cross_entropy_of(objective, *chunk.read()) for chunk in objective.chunks):
            raise ValueError(
                "objective: the parts are those of the mean cross-entropy of outputs (samples, classes) with classes "
                "as targets; make the Objective with nn.CrossEntropyLoss()"
            )


@torch.enable_grad()
def _is_cross_entropy_of(objective: Objective, inputs: Tensor, targets: Tensor) -> bool:
    """Whether the loss is cross-entropy: by its value, and by its gradient in the outputs, where each sample shows."""
    with objective.without_gradients():
        outputs = objective.outputs(objective.theta, inputs).detach()
    if not are_class_scores(outputs, targets) or targets.shape != outputs.shape[:1]:
        return False
    own, plain = (outputs.clone().requires_grad_() for _ in range(2))
    found, expected = objective.loss_fn(own, targets), torch.nn.functional.cross_entropy(plain, targets)
    if not found.requires_grad or not torch.allclose(found, expected.to(found), rtol=1e-4, equal_nan=True):
        return False
    slope, slope_of_plain = (
        torch.autograd.grad(loss, at, materialize_grads=True)[0]
        for loss, at in ((found, own), (expected, plain))
    )
    return agree_within(slope, slope_of_plain, ROUNDING)
