"""Draws of mixtures of pairs of samples, from a generator of torch."""

from __future__ import annotations

import scipy
import torch
from torch import Tensor


def share_and_partner(
    field: str, inputs: Tensor, alpha: float, generator: torch.Generator
) -> tuple[float, Tensor]:
    """A share of Beta(alpha, alpha), once a batch, and the other row with which each row is mixed.

    Args:
        field: what an error calls the inputs.
        inputs: (batch, ...).
        alpha: parameter of the distribution, positive and finite.
        generator: makes the draws, on the CPU.

    Returns:
        The share, and int64 (batch,) on the inputs' device.

    Raises:
        ValueError: the inputs are no tensor of floating-point numbers.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise ValueError(
            f"{field}: only tensors of floating-point numbers can be mixed, such as images, and no tokens"
        )
    # torch has no Beta draw from a generator; the quantile of a uniform draw is a Beta draw
    uniform = torch.rand((), dtype=torch.float64, generator=generator, device="cpu").item()
    share = float(scipy.special.betaincinv(alpha, alpha, uniform))
    partner = torch.randperm(len(inputs), generator=generator, device="cpu")
    # copying to the device needs no wait
    return share, partner.to(inputs.device, non_blocking=True)
