"""The result of an evaluation at one point."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy at one point. The accuracy is NaN if targets are not classes."""

    loss: float
    accuracy: float
