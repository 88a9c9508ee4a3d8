"""Comparisons of derivatives with differences at several draws, all of which a wrong derivative fails."""

from __future__ import annotations

from collections.abc import Callable

from landscape.guards.in_float64 import InFloat64


def error_of_draws(
    few: InFloat64,
    error_of: Callable[[int], float | None],
    explained: Callable[[Exception], None] = lambda _: None,
    draws: int = 2,
) -> float | None:
    """The largest error in float64; None unless each draw has one, or where the model or loss fixes a dtype inside.

    Args:
        few: the loss of some samples.
        error_of: the seed of a draw -> a relative error; None if derivative and difference agree there.
        explained: called with what `error_of` raises; may raise an error that says more.
        draws: their number.
    """
    errors = []
    for seed in range(draws):
        try:
            if few.loses_precision:
                return None
            with few.throughout():
                error = error_of(seed)
        except Exception as failure:
            explained(failure)
            return None
        if error is None:
            return None
        errors.append(error)
    return max(errors)
