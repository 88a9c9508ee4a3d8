"""Whether a derivative differs from a difference in the place of it, where that difference settles."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

ALLOWED = 1e-3
"""Relative difference. Right derivatives differ by 1e-6; wrong ones, or a missing term, by some percent or more."""

SPREAD = 10
"""Differences over several steps give an error. The derivative may differ by this many errors."""

SETTLED = 0.1
"""Largest relative error of a difference that has settled. At a kink a step and half of it differ by half or more."""

DRAWS_AT_KINKS = 4
"""Directions in which a derivative must be wrong at the weights themselves, where the kinks of many units may lie and
cancel each other by chance."""

AT_ZERO = "torch gives abs() ** 2 the second derivative 0 at 0; write square(), or real ** 2 + imag ** 2"
"""The usual cause of second derivatives that are wrong at the weights and right beside them, and the remedy."""

Vector = TypeVar("Vector", float, Tensor)


def error_beyond_differences(
    found: Vector,
    short: Vector,
    *,
    length: Callable[[Vector], float],
    rounding: Callable[[], float],
    spread: Callable[[], float],
) -> float | None:
    """The relative difference of a derivative and a difference; None if it is within what the difference is good for.

    Args:
        found: the derivative along a direction.
        short: the difference over a short step.
        length: of either.
        rounding: () -> the part of the difference that rounding explains; asked only where the two differ.
        spread: () -> how far differences over other steps are apart; asked only where rounding does not explain it.
    """
    distance, size = length(found - short), length(short)
    # none is larger than NaN, which both may be
    if not ALLOWED * size < distance < float("inf"):
        return None
    allowed = ALLOWED * size + (rounded := rounding())
    if distance <= allowed:
        return None
    apart = spread()
    if apart > SETTLED * size + rounded or distance <= allowed + SPREAD * apart:
        return None
    return distance / max(size, distance)
