"""Errors of the trace and of the spectral density, beside the peers, for a small matrix that is computed in full."""

from __future__ import annotations

import curvlinops
import hessian_eigenthings
import numpy as np
import scipy.stats
import torch
from cases import LOSS, trained
from timing import table
from torch import Tensor

from landscape import Objective
from landscape.krylov import Deflation, SymmetricOperator, lanczos_quadrature, trace_and_squared_norm


def small_dense() -> tuple[Tensor, Tensor]:
    """The whole Hessian of a small trained CNN, in float64, and its eigenvalues."""
    model, inputs, targets = trained("cnn", {"channels": [6, 8, 12]}, samples=500, epochs=40)
    objective = Objective(
        model, LOSS, (inputs, targets), dtype=torch.float64, linearize=True, chunk_size=1000
    )
    columns = torch.eye(objective.n_parameters, dtype=torch.float64)
    matrix = torch.cat([objective.hvp(block) for block in columns.split(64, dim=1)], 1)
    matrix = (matrix + matrix.T) / 2
    return matrix, torch.linalg.eigvalsh(matrix)


def bench_trace(matrix: Tensor, draws: int) -> None:
    truth, n = matrix.trace().item(), len(matrix)
    rows = []
    for products in (12, 20, 30, 40, 60):
        for method in ("xtrace", "hutch++", "hutchinson"):
            found = [
                trace_and_squared_norm(
                    SymmetricOperator.of_matrix(matrix),
                    method=method,
                    rtol=None,
                    max_products=products,
                    generator=torch.Generator().manual_seed(seed),
                ).trace
                for seed in range(draws)
            ]  # fmt: skip
            errors = np.array([f.value for f in found]) / truth - 1
            held = np.mean([f.low <= truth <= f.high for f in found])
            rows.append(["ours", method, str(products), f"{np.sqrt(np.mean(errors**2)):.2%}", f"{held:.0%}"])
        for method in ("xtrace", "hutchpp_trace", "hutchinson_trace"):
            usable = products - products % 3 if method == "hutchpp_trace" else products
            torch.manual_seed(0)
            values = [getattr(curvlinops, method)(matrix, usable).item() for _ in range(draws)]
            error = np.sqrt(np.mean((np.array(values) / truth - 1) ** 2))
            rows.append(["curvlinops", method, str(usable), f"{error:.2%}", "none"])
    # variance of one probe of random signs (Hutchinson 1990)
    variance = 2 * (matrix.square().sum() - matrix.diag().square().sum()).item()
    rows.append(["theory", "hutchinson", f"{variance / (0.01 * truth) ** 2:.0f}", "1.00%", ""])
    header = ["who", "method", "products", "RMS error", "95% interval holds"]
    table(f"Trace of a trained CNN's Hessian, {n} parameters, {draws} draws", header, rows)


def bench_density(matrix: Tensor, eigenvalues: Tensor, draws: int) -> None:
    n, truth = len(matrix), eigenvalues.numpy()
    operator = hessian_eigenthings.LambdaOperator(lambda v: matrix @ v, n, dtype=torch.float64)
    rows = []
    for steps, probes in ((30, 3), (30, 5), (40, 10)):
        distances: dict[str, list[float]] = {
            "ours": [],
            "ours without deflation": [],
            "hessian-eigenthings": [],
        }
        for seed in range(draws):
            for key, deflate in (("ours", None), ("ours without deflation", Deflation.empty(n))):
                found = lanczos_quadrature(
                    SymmetricOperator.of_matrix(matrix), steps=steps, probes=probes, deflate=deflate,
                    generator=torch.Generator().manual_seed(seed),
                )  # fmt: skip
                share = (n - len(found.values)) / n / probes
                values = np.r_[found.values.numpy(), found.nodes.numpy().ravel()]
                masses = np.r_[np.full(len(found.values), 1 / n), share * found.weights.numpy().ravel()]
                distances[key].append(scipy.stats.wasserstein_distance(values, truth, masses))
            theirs = hessian_eigenthings.spectral_density(
                operator, num_runs=probes, lanczos_steps=steps, num_grid_points=10, seed=1000 * seed
            )
            distances["hessian-eigenthings"].append(
                scipy.stats.wasserstein_distance(
                    theirs.raw_eigenvalues.numpy().ravel(), truth, theirs.raw_weights.numpy().ravel()
                )
            )
        base = np.median(distances["ours without deflation"])
        for key, values in distances.items():
            rows.append([key, f"{probes} x {steps}", f"{np.median(values) / np.abs(truth).mean():.3f}",
                         f"{np.median(values) / base:.2f}"])  # fmt: skip
    header = ["who", "products", "distance to the true spectrum / mean |eigenvalue|", "of plain SLQ's"]
    table("Spectral density (1-Wasserstein distance, median)", header, rows)
