"""One scale for the losses of several surfaces. It is logarithmic, and a few outliers do not stretch it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from numpy.typing import NDArray

from landscape import Line, Path, Surface

LEVELS = 21
OUTLIERS = 25.0
"""A loss above this multiple of the 90th percentile is an outlier; the scale ends below it."""


def robust_range(losses: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The range of the finite losses. If the largest are outliers, it ends at `OUTLIERS` times the 90th percentile.

    Raises:
        ValueError: no surface, or no loss is finite.
    """
    if not losses:
        raise ValueError("surfaces: there is none to draw")
    values = np.concatenate([loss.ravel() for loss in losses])
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError("surfaces: no point has a finite loss")
    low, high = float(values.min()), float(values.max())
    if low == 0:
        # zero itself is drawn as the smallest loss above it
        low = float(values[values > 0].min(initial=np.inf)) if (values > 0).any() else 0.0
    if low > 0:
        high = min(high, max(OUTLIERS * float(np.quantile(values, 0.9)), 1.01 * low))
    width = abs(high) * 0.01 or 1.0
    return low, max(high, low + width)


def loss_scale(low: float, high: float) -> tuple[Normalize, NDArray[np.float64]]:
    """Colors and levels between two losses: logarithmic if both are positive, else linear."""
    if low > 0:
        return LogNorm(low, high), np.geomspace(low, high, LEVELS)
    return Normalize(low, high), np.linspace(low, high, LEVELS)


def height_of(loss: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Losses as heights of a relief: logarithms on a logarithmic scale, and NaN for losses that are not finite."""
    finite = np.where(np.isfinite(loss), loss, np.nan).clip(low, high)
    return np.asarray(np.log10(finite) if low > 0 else finite)


def loss_at(height: float, low: float, high: float) -> str:
    """The loss at a height of a relief, with enough digits to distinguish the ticks of its scale."""
    digits = 2 + max(0, round(-np.log10((high - low) / max(abs(low), abs(high)))))
    return f"{10**height if low > 0 else height:.{digits}g}"


def what_levels_say(surfaces: Sequence[tuple[str, Surface]], high: float) -> str:
    """The number of points beyond the scale and the share of interpolated points, for a caption."""
    beyond = sum(int((s.loss[np.isfinite(s.loss)] > high * (1 + 1e-9)).sum()) for _, s in surfaces)
    said = f"{beyond} points beyond {high:.3g} are drawn as that. " if beyond else ""
    refined = [s for _, s in surfaces if s.evaluated is not None]
    if refined:
        share = np.mean([s.evaluated.mean() for s in refined if s.evaluated is not None])
        errors = [
            np.nanmax(s.loss_interpolation_error) for s in refined if s.loss_interpolation_error is not None
        ]
        error = f"{max(errors):.2g} {_unit(refined)}".rstrip()
        said += f"{share:.0%} of the points are evaluated, the others within about {error}. "
    return said


def holes(surfaces: Iterable[tuple[str, Surface | Line | Path]]) -> str:
    """The number of points without a finite loss, for a caption; empty if there are none."""
    count = sum(int((~np.isfinite(surface.loss)).sum()) for _, surface in surfaces)
    return f"{count} points without a finite loss are left out. " if count else ""


def with_unit(name: str, results: Iterable[Surface | Line | Path]) -> str:
    """The name of a loss with its unit, as in "test loss (nat)", if the results share a unit."""
    unit = _unit(results)
    return f"{name} ({unit})" if unit else name


def _unit(results: Iterable[Surface | Line | Path]) -> str:
    units = {result.loss_unit for result in results}
    return units.pop() if len(units) == 1 else ""
