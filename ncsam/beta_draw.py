"""Draws of a symmetric Beta distribution from a generator of torch, for mixtures of samples."""

from __future__ import annotations

import scipy
import torch


def beta_draw(alpha: float, generator: torch.Generator) -> float:
    """A draw of Beta(alpha, alpha)."""
    # torch has no Beta draw from a generator; the quantile of a uniform draw is a Beta draw
    uniform = torch.rand((), dtype=torch.float64, generator=generator, device="cpu").item()
    return float(scipy.special.betaincinv(alpha, alpha, uniform))
