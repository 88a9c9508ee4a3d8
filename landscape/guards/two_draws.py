"""Comparisons of derivatives with differences at two draws, both of which a wrong derivative fails."""

from __future__ import annotations

from collections.abc import Callable

from landscape.guards.in_float64 import InFloat64


def error_of_two_draws(
    few: InFloat64,
    error_of: Callable[[int], float | None],
    explained: Callable[[Exception], None] = lambda _: None,
) -> float | None:
    """The larger of two errors in float64; None unless there are two, or where the model or loss fixes a dtype inside.

    Args:
        few: the loss of some samples.
        error_of: the seed of a draw -> a relative error; None if derivative and difference agree there.
        explained: called with what `error_of` raises; may raise an error that says more.
    """
    errors = []
    for seed in range(2):
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
