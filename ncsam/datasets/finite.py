"""Samples with values that are not finite, from which nothing can be learned."""

from __future__ import annotations

import torch
from torch import Tensor


def check_finite(name: str, samples: Tensor, numbers: Tensor | None = None) -> None:
    """Checks that all values are finite. One pass, and no copy of the samples.

    Args:
        name: what the error calls the samples.
        samples: (n, ...); whole numbers are finite.
        numbers: int64 (n,), the number by which the user knows each sample; its position if not given.

    Raises:
        ValueError: a value is NaN or infinite; the message names the first sample that holds one.
    """
    values = torch.view_as_real(samples) if samples.is_complex() else samples
    if not values.is_floating_point() or not values.numel() or _are_finite(values):
        return
    is_lost = ~values.isfinite()
    position = int(is_lost.flatten(1).any(1).int().argmax() if values.ndim > 1 else is_lost.int().argmax())
    number = position if numbers is None else int(numbers[position])
    value = float(values[position][is_lost[position]].flatten()[0])
    raise ValueError(
        f"{name}: sample {number} holds {value} ({int(is_lost.sum())} values of all are not finite); fill them in, or "
        "leave the samples out"
    )


def _are_finite(values: Tensor) -> bool:
    # both ends are NaN if any value is
    return all(bool(end.isfinite()) for end in values.aminmax())
