"""What an evaluation of a loss at one point gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy at one point; the accuracy is NaN where targets are not classes."""

    loss: float
    accuracy: float
