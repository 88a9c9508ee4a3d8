"""The trace of a matrix of the mean loss: of the whole matrix, and of each layer's block."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from landscape.curvature.eigenvalues import TopEigenvalues, deflation
from landscape.curvature.random_part import random_part
from landscape.curvature.with_pyhessian import ask_pyhessian
from landscape.krylov.counted import counted_products
from landscape.krylov.traces import METHODS, TraceAndSquaredNorm, block_traces, trace_and_squared_norm
from landscape.krylov.two_levels import two_level_trace
from landscape.loss.matrices_by_name import matrix_named
from landscape.loss.objective import Objective
from landscape.loss.wrapped import check_whole_vectors, of_objective, of_whole_or_sharded
from landscape.operator import Operator
from landscape.progress import Progress
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.results.shown import DrawnResult, Result
from landscape.seeds import generator_for

VECTORS = 3
"""Vectors in float64 that a probe of Hutchinson's method needs: the probe, its product and a copy."""

BYTES_OF_XTRACE = 16
"""Bytes for each parameter and product: XTrace keeps four vectors in float64 for each probe, and spends two products on
it."""

MOST_ON_PART = 300
"""Products on a part that need no larger `max_products`: XTrace's error takes memory that grows with their cube."""


@result
class TraceEstimate(Result):
    """The trace of a matrix and its squared Frobenius norm, with their errors."""

    value: float = described("trace of the matrix of the mean loss: sum of its eigenvalues")
    standard_error: float = described(
        "standard error of the value, a quarter of the width of its 95% interval; NaN where the method gives none"
    )
    low: float = described("lower end of the value's 95% interval")
    high: float = described("upper end of the value's 95% interval")
    squared_norm: float = described("squared Frobenius norm: sum of the squared eigenvalues")
    squared_norm_error: float = described(
        "standard error of the squared norm, a quarter of the width of its 95% interval"
    )
    converged: bool = described("the 95% interval, of the trace or of the norm, is within +-2 rtol of it")
    products: int = described("matrix-vector products spent", unit="products")
    matrix: str = described("which matrix")
    method: str = described("who computed it")
    samples: int = described("samples in the mean loss")


@result
class LayerTraces(DrawnResult):
    """The traces of the diagonal blocks of a matrix, one block for each parameter tensor."""

    layer: NDArray[np.str_] = described("name of the parameter tensor", dims=("layer",), coordinate=True)
    values: FloatArray = described("traces of the layers' diagonal blocks", dims=("layer",))
    standard_errors: FloatArray = described(
        "of the values, a quarter of the width of their 95% intervals", dims=("layer",)
    )
    parameters: NDArray[np.int64] = described("entries of each tensor", dims=("layer",))
    converged: bool = described("every 95% interval is within 2 rtol of the whole trace")
    products: int = described("matrix-vector products spent", unit="products")
    matrix: str = described("which matrix")
    samples: int = described("samples in the mean loss")


@of_whole_or_sharded
def trace(
    objective: Objective,
    *,
    rtol: float | None = 0.05,
    max_products: int = 200,
    seed: int = 0,
    deflate: TopEigenvalues | None = None,
    matrix: str = "hessian",
    method: str | None = None,
    part: float | None = None,
    goal: str = "trace",
    progress: Progress | bool | None = None,
) -> TraceEstimate:
    """The trace and the squared Frobenius norm of a matrix at the objective's weights.

    Args:
        objective: gives the matrix.
        rtol: sampling ends when the 95% interval of the goal is within +-2 rtol |value|; None spends the whole budget.
        max_products: most products that may be spent.
        seed: seed of the probes.
        deflate: eigenpairs that were found for the same objective. Their part of the trace is exact, and only the rest
            is sampled.
        matrix: `"hessian"`, `"gauss-newton"` or `"functional"` (Hessian minus Gauss-Newton), `"empirical-fisher"`.
        method: `"xtrace"`, `"hutch++"` or `"hutchinson"` (`landscape.krylov.trace_and_squared_norm`). If not
            given, XTrace if its vectors fit into the objective's memory budget, else Hutchinson's method, which is the
            only one for a model under FSDP2. `"pyhessian"` asks PyHessian for a second opinion, which has no error
            estimate.
        part: share of the samples, such as 1/8, that are drawn at random with the seed. Most probes are multiplied on
            this part, and only some on all samples, for the difference (`landscape.krylov.two_levels`). The trace is
            that of all samples, without bias for a fixed budget. Products on the part count by their share. This pays
            if the part has some thousand samples; with few samples it costs more than it saves.
        goal: what shall be known to `rtol`: the `"trace"`, or the `"norm"`, which is Frobenius'. The trace of an
            indefinite matrix may be near 0, where no relative accuracy can be reached.
        progress: called with the products spent on all samples and the most that may be spent. True writes a line on
            the terminal.

    Raises:
        ValueError: an argument is out of range.
    """
    if method == "pyhessian":
        if deflate is not None or matrix != "hessian" or part is not None or goal != "trace":
            raise ValueError("deflate, matrix, part, goal: PyHessian knows none of them; leave them out")
        return _pyhessian_trace(objective, rtol, max_products, seed)
    if method is not None and method not in METHODS:
        raise ValueError(f"method: must be one of {', '.join(METHODS)}, pyhessian, got {method!r}")
    if method is None:
        fits = BYTES_OF_XTRACE * objective.n_parameters * max_products <= objective.memory_budget
        method = "xtrace" if fits and not objective.ranks.share_vectors else "hutchinson"
    objective.memory.check_room(VECTORS, "trace", in_float64=True)
    if part is not None:
        if deflate is not None or method == "hutch++" or goal != "trace":
            raise ValueError(
                "part: goes with xtrace or hutchinson and the trace, without deflate; leave one of them out"
            )
        check_whole_vectors(objective, "trace with the help of a part")
    operator = matrix_named(matrix, objective)
    operator.expect(min(12, max_products))
    asked: _Asked = {
        "method": method,
        "rtol": rtol,
        "max_products": max_products,
        "generator": objective.ranks.generator("probes of a trace", seed),
    }
    with counted_products(operator, max_products, progress, "trace") as counted:
        if part is None:
            known = None if deflate is None else deflation(deflate, objective, matrix)
            found = trace_and_squared_norm(counted, deflate=known, goal=goal, **asked)
        else:
            found = _with_a_part(counted, objective, part, matrix, seed, asked)
    return TraceEstimate(
        value=found.trace.value,
        standard_error=found.trace.standard_error,
        low=found.trace.low,
        high=found.trace.high,
        squared_norm=found.square.value,
        squared_norm_error=found.square.standard_error,
        converged=found.converged,
        products=found.products,
        matrix=matrix,
        method=method,
        samples=objective.n_samples,
    )


class _Asked(TypedDict):
    """The options of both ways to a trace."""

    method: str
    rtol: float | None
    max_products: int
    generator: torch.Generator


def _with_a_part(
    operator: Operator, objective: Objective, share: float, matrix: str, seed: int, asked: _Asked
) -> TraceAndSquaredNorm:
    some = random_part(objective, share, seed)
    resembling = matrix_named(matrix, some)
    resembling.expect(asked["max_products"])
    # the part's products are cheap; what bounds them is memory
    room = objective.memory_budget // (BYTES_OF_XTRACE * objective.n_parameters)
    most = max(asked["max_products"], min(room, MOST_ON_PART))
    return two_level_trace(
        operator, resembling, some.n_samples / objective.n_samples, max_on_part=most, **asked
    )


@of_objective
def layer_traces(
    objective: Objective,
    *,
    rtol: float | None = 0.05,
    max_products: int = 200,
    seed: int = 0,
    deflate: TopEigenvalues | None = None,
    matrix: str = "hessian",
    progress: Progress | bool | None = None,
) -> LayerTraces:
    """The traces of the diagonal blocks of all parameter tensors, from the same products.

    Their sum is the trace of the whole matrix. `trace(objective.subset(parameters=...))` gives the trace of one layer
    with more precision.

    Args:
        objective: gives the matrix.
        rtol: sampling ends when each 95% interval is within +-2 rtol of the whole trace; None spends the whole budget.
        max_products: most products that may be spent, at least 2.
        seed: seed of the probes.
        deflate: eigenpairs that were found for the same objective. Their part is exact.
        matrix: as for `trace`.
        progress: as for `trace`.

    Raises:
        ValueError: an argument is out of range.
    """
    sizes = [shape.numel() for shape in objective.shapes]
    objective.memory.check_room(VECTORS, "layer_traces", in_float64=True)
    operator = matrix_named(matrix, objective)
    operator.expect(min(16, max_products))
    with counted_products(operator, max_products, progress, "layer traces") as counted:
        estimates, converged, products = block_traces(
            counted,
            sizes,
            rtol=rtol,
            max_products=max_products,
            deflate=None if deflate is None else deflation(deflate, objective, matrix),
            generator=generator_for("probes of layer traces", seed),
        )
    return LayerTraces(
        layer=np.array(objective.names),
        values=np.array([estimate.value for estimate in estimates]),
        standard_errors=np.array([estimate.standard_error for estimate in estimates]),
        parameters=np.array(sizes),
        converged=converged,
        products=products,
        matrix=matrix,
        samples=objective.n_samples,
    )


def _pyhessian_trace(objective: Objective, rtol: float | None, max_products: int, seed: int) -> TraceEstimate:
    tolerance = 0.0 if rtol is None else rtol
    values, products = ask_pyhessian(objective, seed, lambda h: h.trace(maxIter=max_products, tol=tolerance))
    return TraceEstimate(
        value=float(np.mean(values)),
        standard_error=math.nan,
        low=math.nan,
        high=math.nan,
        squared_norm=math.nan,
        squared_norm_error=math.nan,
        converged=False,
        products=products,
        matrix="hessian",
        method="pyhessian",
        samples=objective.n_samples,
    )
