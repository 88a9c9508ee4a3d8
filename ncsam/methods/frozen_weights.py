"""Weights that are frozen for a block of code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """A block in which these weights require no gradient. All of them must require one before, and do so afterward."""
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
