"""Leading eigenvalues and trace of an Objective's Hessian."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.krylov import top_eigenpairs
from landscape.objective import Objective
from landscape.results import FloatArray, described
from landscape.trace import hutchinson

METHODS = ("own", "pyhessian")


@dataclass(frozen=True)
class TopEigenvalues:
    """The most extreme eigenvalues of a Hessian, the most extreme first, each with its error."""

    values: FloatArray = described("eigenvalues of the Hessian of the mean loss", dims=("eigenvalue",))
    residuals: FloatArray = described(
        "||H v - value v||: an eigenvalue lies within that distance", dims=("eigenvalue",)
    )
    converged: NDArray[np.bool_] = described(
        "the residual is at most tol |value|, or rounding", dims=("eigenvalue",)
    )
    vectors: Tensor | None = described(
        "eigenvectors, orthonormal (PyHessian's only nearly so)", dims=("parameter", "eigenvalue")
    )
    products: int = described("Hessian-vector products spent", unit="products")
    which: str = described("which end of the spectrum")
    tol: float = described("relative residual asked for")
    method: str = described("who computed it")
    samples: int = described("samples in the mean loss")


@dataclass(frozen=True)
class TraceEstimate:
    """The trace of a Hessian with its standard error."""

    value: float = described("trace of the Hessian of the mean loss")
    standard_error: float = described("standard error of the value; NaN where the method gives none")
    converged: bool = described("the standard error is within the tolerance asked for")
    products: int = described("Hessian-vector products spent", unit="products")
    method: str = described("who computed it")
    samples: int = described("samples in the mean loss")


def top_eigenvalues(
    objective: Objective,
    k: int = 1,
    *,
    which: str = "largest",
    tol: float = 1e-3,
    max_products: int | None = None,
    seed: int = 0,
    method: str = "own",
) -> TopEigenvalues:
    """The k most extreme eigenvalues of the Hessian at the objective's weights.

    Args:
        objective: whose Hessian.
        k: how many, from 1 to the number of parameters.
        which: `"largest"`, `"smallest"` (algebraically) or `"magnitude"`.
        tol: residual asked for, relative to the eigenvalue.
        max_products: budget of Hessian-vector products; 40 k + 60 if not given.
        seed: of the start vectors.
        method: `"own"`: block Lanczos with full reorthogonalisation, vectors in float64.
            `"pyhessian"`: PyHessian's power iteration, a second opinion; only for `which="magnitude"`, which is
            what it computes. The residuals are ours, also of its vectors.

    Raises:
        ValueError: an argument out of range.
    """
    if method not in METHODS:
        raise ValueError(f"method: must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "pyhessian":
        return _pyhessian_eigenvalues(objective, k, which, tol, max_products, seed)
    pairs = top_eigenpairs(
        objective.hvp,
        objective.n_parameters,
        k,
        which=which,
        tol=tol,
        max_products=max_products,
        generator=torch.Generator(objective.device).manual_seed(seed),
        device=objective.device,
        precision=objective.dtype,
    )
    return TopEigenvalues(
        values=pairs.values.cpu().numpy(),
        residuals=pairs.residuals.cpu().numpy(),
        converged=pairs.converged.cpu().numpy(),
        vectors=pairs.vectors,
        products=pairs.products,
        which=which,
        tol=tol,
        method="own",
        samples=objective.n_samples,
    )


def trace(
    objective: Objective,
    *,
    rtol: float | None = 0.05,
    max_products: int = 200,
    seed: int = 0,
    deflate: TopEigenvalues | None = None,
    method: str = "own",
) -> TraceEstimate:
    """The trace of the Hessian at the objective's weights.

    Args:
        objective: whose Hessian.
        rtol: standard error asked for, relative to the value; None spends the whole budget.
        max_products: budget of Hessian-vector products.
        seed: of the probes.
        deflate: eigenpairs already found of the same objective: their part of the trace is exact, and only
            the rest is sampled.
        method: `"own"`: Hutchinson's estimate. `"pyhessian"`: PyHessian's, a second opinion; it gives no error.

    Raises:
        ValueError: an argument out of range.
    """
    if method not in METHODS:
        raise ValueError(f"method: must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "pyhessian":
        if deflate is not None:
            raise ValueError("deflate: PyHessian cannot use eigenvectors; leave it out")
        return _pyhessian_trace(objective, rtol, max_products, seed)
    known = None
    if deflate is not None:
        if deflate.method != "own":
            raise ValueError(
                f"deflate: needs orthonormal vectors, which method {deflate.method!r} does not give"
            )
        if deflate.vectors is None:
            raise ValueError("deflate: holds no eigenvectors; they were dropped before it was stored")
        quotients = torch.from_numpy(deflate.values).to(objective.device)
        known = (deflate.vectors.to(objective.device), quotients)
    estimate = hutchinson(
        objective.hvp,
        objective.n_parameters,
        rtol=rtol,
        max_products=max_products,
        deflate=known,
        generator=torch.Generator(objective.device).manual_seed(seed),
        device=objective.device,
    )
    return TraceEstimate(
        value=estimate.value,
        standard_error=estimate.standard_error,
        converged=estimate.converged,
        products=estimate.products,
        method="own",
        samples=objective.n_samples,
    )


def _pyhessian_eigenvalues(
    objective: Objective, k: int, which: str, tol: float, max_products: int | None, seed: int
) -> TopEigenvalues:
    if which != "magnitude":
        raise ValueError(
            f"which: PyHessian's power iteration finds the largest by magnitude; pass 'magnitude', got {which!r}"
        )
    if not 1 <= k <= objective.n_parameters:
        raise ValueError(
            f"k: must lie between 1 and the number of parameters {objective.n_parameters}, got {k}"
        )
    iterations = max(1, (100 * k if max_products is None else max_products) // k)
    found, products = _with_pyhessian(
        objective, seed, lambda h: h.eigenvalues(maxIter=iterations, tol=tol, top_n=k)
    )
    columns = [torch.cat([part.flatten() for part in vector]) for vector in found[1]]
    vectors = torch.stack(columns, 1).double()
    values = torch.tensor(found[0], dtype=torch.float64, device=objective.device)
    residuals = torch.linalg.vector_norm(objective.hvp(vectors).double() - vectors * values, dim=0)
    return TopEigenvalues(
        values=values.cpu().numpy(),
        residuals=residuals.cpu().numpy(),
        converged=(residuals <= tol * values.abs()).cpu().numpy(),
        vectors=vectors,
        products=products + k,
        which=which,
        tol=tol,
        method="pyhessian",
        samples=objective.n_samples,
    )


def _pyhessian_trace(objective: Objective, rtol: float | None, max_products: int, seed: int) -> TraceEstimate:
    tolerance = 0.0 if rtol is None else rtol
    values, products = _with_pyhessian(
        objective, seed, lambda h: h.trace(maxIter=max_products, tol=tolerance)
    )
    return TraceEstimate(
        value=float(np.mean(values)),
        standard_error=float("nan"),
        converged=False,
        products=products,
        method="pyhessian",
        samples=objective.n_samples,
    )


def _with_pyhessian(objective: Objective, seed: int, ask: Callable[[Any], Any]) -> tuple[Any, int]:
    """Asks PyHessian about a copy of the model; returns its answer and the products it spent.

    PyHessian draws from the global random state, which is put back.
    """
    from pyhessian import hessian

    if objective.dtype != torch.float32:
        raise ValueError(f"method: PyHessian draws float32 vectors and cannot measure in {objective.dtype}")
    spent = 0

    def count(_: Tensor) -> None:
        nonlocal spent
        spent += 1

    cuda = objective.device.type == "cuda"
    with torch.random.fork_rng(devices=[objective.device] if cuda else []), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
        torch.random.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        data = (objective.inputs.to(objective.device), objective.targets.to(objective.device))
        estimator = hessian(objective.independent_model(), objective.loss_fn, data=data, cuda=cuda)
        if not all(isinstance(part, Tensor) and part.requires_grad for part in estimator.gradsH):
            raise ValueError(
                "method: PyHessian cannot measure a model with parameters that the loss does not reach"
            )
        # each product sends one vector back through the kept graph of the gradient
        estimator.gradsH[0].register_hook(count)
        answer = ask(estimator)
        # the model's gradients hold the graph that holds the model: a cycle that would keep the memory
        estimator.model.zero_grad(set_to_none=True)
    return answer, spent
