"""The parts of a cross-entropy's curvature: how fast outputs move, how uncertain they are, and the labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.eigenvalues import TopEigenvalues, top_eigenvalues
from landscape.curvature.plain_mean import check_that_it_is_a_plain_mean
from landscape.curvature.traces import VECTORS, TraceEstimate, trace
from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_objective
from landscape.progress import Progress
from landscape.results.fields import described
from landscape.results.registry import result
from landscape.results.shown import Result


@result
class CurvatureParts(Result):
    """Jacobian, uncertainty, Gauss-Newton matrix and functional Hessian of one loss, each with its error.

    The Hessian of a mean cross-entropy is the Gauss-Newton matrix, mean J_i^T (diag p_i - p_i p_i^T) J_i, plus the
    functional Hessian (Singh et al. 2021). The Gauss-Newton matrix grows with the outputs' Jacobian J and with the
    uncertainty of the predictions p, and does not depend on the labels. Only the functional Hessian depends on them.
    """

    jacobian_trace: float = described("trace of mean J^T J: mean squared norm of a sample's Jacobian")
    jacobian_trace_error: float = described("standard error of that trace, over probes")
    jacobian_top: float = described("largest eigenvalue of mean J^T J")
    jacobian_top_error: float = described("error of that eigenvalue")
    uncertainty: float = described("mean of 1 - sum of squared probabilities: 0 sure, 1 - 1/classes unsure")
    gauss_newton_trace: float = described("trace of the Gauss-Newton matrix")
    gauss_newton_trace_error: float = described("standard error of that trace, over probes")
    functional_norm: float = described("Frobenius norm of the functional Hessian")
    functional_norm_error: float = described("standard error of that norm, over probes")
    functional_smallest: float = described("smallest eigenvalue of the functional Hessian")
    functional_smallest_error: float = described("error of that eigenvalue")
    converged: bool = described("traces are within their tolerance, and both eigenvalues were found")
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
        rtol: relative accuracy of the traces; see `trace`.
        tol: relative residual of the eigenvalues; their error is of second order in the residual.
        max_products: most products that each estimate may spend.
        seed: seed of probes and start vectors.
        progress: as for `trace`, of each of the five estimates in turn.

    Raises:
        ValueError: the loss is not the mean cross-entropy of class scores, or the memory budget is too small.
    """
    # its traces need the most
    objective.memory.check_room(VECTORS, "curvature_parts", in_float64=True)
    _check_that_it_is_cross_entropy(objective)
    jacobian = _with_loss(objective, half_squared_outputs)
    # the largest eigenvalues of J^T J lie far above the others; deflation makes their part of the trace exact
    shared: dict[str, Any] = {"max_products": max_products, "seed": seed, "progress": progress}
    top = top_eigenvalues(jacobian, 1, matrix="gauss-newton", tol=tol, **shared)
    traces = {
        "jacobian": trace(jacobian, matrix="gauss-newton", rtol=rtol, deflate=top, **shared),
        "gauss-newton": trace(objective, matrix="gauss-newton", rtol=rtol, **shared),
        # only the norm is used; the trace is near 0, so that a relative accuracy of it makes no sense
        "functional": trace(objective, matrix="functional", rtol=None, **shared),
    }
    smallest = top_eigenvalues(objective, 1, which="smallest", matrix="functional", tol=tol, **shared)
    functional, functional_error = _norm(traces["functional"])
    return CurvatureParts(
        jacobian_trace=traces["jacobian"].value,
        jacobian_trace_error=traces["jacobian"].standard_error,
        jacobian_top=float(top.values[0]),
        jacobian_top_error=float(top.errors[0]),
        uncertainty=_with_loss(objective, impurity).value(),
        gauss_newton_trace=traces["gauss-newton"].value,
        gauss_newton_trace_error=traces["gauss-newton"].standard_error,
        functional_norm=functional,
        functional_norm_error=functional_error,
        functional_smallest=float(smallest.values[0]),
        functional_smallest_error=float(smallest.errors[0]),
        converged=_all_converged(traces, (top, smallest), functional_error <= 2 * rtol * functional),
        products=sum(each.products for each in traces.values()) + top.products + smallest.products,
        samples=objective.n_samples,
    )


def _norm(estimate: TraceEstimate) -> tuple[float, float]:
    """The Frobenius norm and its standard error, from the squared norm and its standard error."""
    if not estimate.squared_norm > 0:
        return (0.0, 0.0) if estimate.squared_norm == 0 else (math.nan, math.nan)
    norm = math.sqrt(estimate.squared_norm)
    return norm, estimate.squared_norm_error / (2 * norm)


def _all_converged(
    traces: dict[str, TraceEstimate], eigenvalues: tuple[TopEigenvalues, ...], norm_is_known: bool
) -> bool:
    return (
        traces["jacobian"].converged
        and traces["gauss-newton"].converged
        and norm_is_known
        and all(bool(np.all(each.converged)) for each in eigenvalues)
    )


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
    inputs, targets = objective.inputs[:2].to(objective.device), objective.targets[:2].to(objective.device)
    with torch.no_grad():
        outputs = objective.outputs(objective.theta, inputs)
        found = objective.loss_fn(outputs, targets)
    is_scores = outputs.ndim == 2 and not targets.is_floating_point() and targets.shape == outputs.shape[:1]
    expected = torch.nn.functional.cross_entropy(outputs, targets) if is_scores else torch.nan
    if not is_scores or not torch.allclose(
        found, torch.as_tensor(expected).to(found), rtol=1e-4, equal_nan=True
    ):
        raise ValueError(
            "objective: the parts are those of the mean cross-entropy of outputs (samples, classes) with classes as "
            "targets; make the Objective with nn.CrossEntropyLoss()"
        )
