"""One scale for the losses of several surfaces. It is logarithmic, and a few outliers do not stretch it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np
import scipy
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from figures.style import Titled, fitted, points
from landscape import Line, Path, Surface, Topology

LEVELS = 65
"""Shades of a surface, between its contour lines."""
FINER = 4
"""Points of the drawn mesh between two measured ones."""
SMOOTH = 0.05
"""Largest error of a spline of every second point, as a share of the surface's range, with which a spline is drawn."""
FEWEST_FOR_SPLINE = 7
"""Points of an axis of which every second one is enough for a cubic spline."""
FEWEST_LINES, MOST_LINES = 5, 9
"""Contour lines of a panel."""
ROUND_STEPS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0),
)
"""Round numbers of a decade, from few to many."""
SMALLEST = 1e-280
"""Smaller losses are drawn as 0, because Matplotlib has no scale for them."""
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
    values = np.where(np.abs(values) < SMALLEST, 0.0, values)
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


def round_losses(low: float, high: float) -> NDArray[np.float64]:
    """About `FEWEST_LINES` to `MOST_LINES` round losses between two others, for contour lines that can be named."""
    if low > 0 and high / low >= 2:
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        for steps in ROUND_STEPS:
            losses = np.multiply.outer(decades, steps).ravel()
            inner = losses[(losses > low) & (losses < high)]
            if len(inner) >= FEWEST_LINES:
                return np.asarray(inner[:: -(-len(inner) // MOST_LINES)], dtype=np.float64)
    inner = np.asarray(MaxNLocator(MOST_LINES, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    return np.asarray(inner[(inner > low) & (inner < high)], dtype=np.float64)


def round_losses_of(surface: Surface, low: float, high: float) -> NDArray[np.float64]:
    """The round losses of a scale that a surface has; other ones between its own losses, if it has few of those."""
    finite = surface.loss[np.isfinite(surface.loss)].clip(low, high)
    shared = round_losses(low, high)
    if not len(finite):
        return shared[:0]
    bottom, top = float(finite.min()), float(finite.max())
    inner = shared[(shared > bottom) & (shared < top)]
    return inner if len(inner) >= FEWEST_LINES or bottom == top else round_losses(bottom, top)


def finer(
    surface: Surface, low: float, high: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(alpha, beta, height) of a finer mesh for drawing: between measured points a cubic spline of the height.

    The spline stays between the lowest and the highest measured point. With too few points for a cubic spline
    (`is_smooth`) it is linear. A surface with holes is drawn as measured.
    """
    height = height_of(surface.loss, low, high)
    if not np.isfinite(height).all():
        return surface.alpha, surface.beta, height
    axes = [
        np.linspace(axis[0], axis[-1], FINER * (len(axis) - 1) + 1) for axis in (surface.alpha, surface.beta)
    ]
    degree = 3 if is_smooth(surface, low, high) else 1
    spline = scipy.interpolate.RectBivariateSpline(surface.alpha, surface.beta, height, kx=degree, ky=degree)
    return *axes, np.clip(spline(*axes), height.min(), height.max())


def is_smooth(surface: Surface, low: float, high: float) -> bool:
    """Whether a cubic spline tells the height between the measured points.

    The spline of every second point is compared with the points that it leaves out. It must be right to within `SMOOTH`
    of the surface's range. The spline of all points is nearer still: by a factor of 16 where the height is smooth.
    """
    height = height_of(surface.loss, low, high)
    if not np.isfinite(height).all() or min(height.shape) < FEWEST_FOR_SPLINE:
        return False
    alpha, beta, known = surface.alpha[::2], surface.beta[::2], height[::2, ::2]
    inside = height[: 2 * len(alpha) - 1, : 2 * len(beta) - 1]
    told = scipy.interpolate.RectBivariateSpline(alpha, beta, known)(
        surface.alpha[: inside.shape[0]], surface.beta[: inside.shape[1]]
    )
    return bool(np.abs(told - inside).max() <= SMOOTH * np.ptp(height))


def grids_say(surfaces: Titled[Surface], low: float, high: float) -> str:
    """The sizes of the grids, and what is drawn between their points, for a caption."""
    found = dict.fromkeys(
        f"{len(surface.alpha)} × {len(surface.beta)} points, "
        + ("a cubic spline between them" if is_smooth(surface, low, high) else "linear between them")
        for _, surface in surfaces
    )
    return f"Grid: {'; '.join(found)}. "


def contours_on(
    ax: Axes, surface: Surface, low: float, high: float, lines_at: NDArray[np.float64] | None = None
) -> None:
    """Shades, and lines at round losses with their numbers; at the losses `lines_at` if given."""
    alpha, beta, height = finer(surface, low, high)
    drawn = np.ma.masked_invalid(height).T
    bottom, top = height_of(np.array([low, high]), low, high)
    ax.set_facecolor("0.85")
    cmap = mpl.rcParams["image.cmap"]
    ax.contourf(alpha, beta, drawn, np.linspace(bottom, top, LEVELS), cmap=cmap, vmin=bottom, vmax=top)
    losses = round_losses_of(surface, low, high) if lines_at is None else lines_at
    heights = height_of(losses, low, high)
    if not len(losses) or drawn.count() == 0:
        return
    named = {height: f"{loss:g}" for height, loss in zip(heights, losses, strict=True)}
    with warnings.catch_warnings():
        # a model whose losses lie between two lines has none
        warnings.filterwarnings("ignore", "No contour levels were found")
        lines = ax.contour(alpha, beta, drawn, heights, colors="w", linewidths=0.7)
    for label in ax.clabel(lines, fmt=named, fontsize=points("small")):
        label.set_path_effects([withStroke(linewidth=1.5, foreground="0.15")])


def color_bar(figure: Figure, axes: Sequence[Axes], low: float, high: float, name: str) -> None:
    """The color bar of a scale. Its ticks are the round losses, all with their numbers; its label says "logarithmic".

    Args:
        figure: whose bar.
        axes: panels from which the bar takes room.
        low: lowest loss of the scale; the scale is logarithmic if this is above 0.
        high: highest loss.
        name: what the loss is, with its unit.
    """
    norm = LogNorm(low, high) if low > 0 else Normalize(low, high)
    bar = figure.colorbar(
        ScalarMappable(norm, mpl.rcParams["image.cmap"]), ax=list(axes), shrink=0.85, pad=0.02
    )
    bar.set_label(fitted(f"{name}, {scale_name(low)}", 0.8 * figure.get_figheight()))
    losses = round_losses(low, high)
    bar.set_ticks(losses.tolist(), labels=[f"{loss:g}" for loss in losses])
    bar.minorticks_off()


def scale_name(low: float) -> str:
    """The kind of a scale that begins at this loss."""
    return "logarithmic" if low > 0 else "linear"


def height_of(loss: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Losses as heights of a relief: logarithms on a logarithmic scale, and NaN for losses that are not finite."""
    finite = np.where(np.isfinite(loss), loss, np.nan).clip(low, high)
    return np.asarray(np.log10(finite) if low > 0 else finite)


def height_ticks(low: float, high: float) -> list[float]:
    """Heights of a relief at round losses: 1, 3, 10, ... where the scale is logarithmic."""
    if low > 0 and high / low >= 10:
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        losses = [step * 10.0**decade for decade in decades for step in (1, 3)]
        losses = [loss for loss in losses if low <= loss <= high]
    else:
        losses = [float(loss) for loss in np.linspace(low, high, 4)]
    return [float(height) for height in height_of(np.array(losses), low, high)]


def loss_at(height: float, low: float, high: float) -> str:
    """The loss at a height of a relief, with enough digits to distinguish the ticks of its scale."""
    digits = 2 + max(0, round(-np.log10((high - low) / max(abs(low), abs(high)))))
    return f"{10**height if low > 0 else height:.{digits}g}"


def what_levels_say(surfaces: Titled[Surface], high: float) -> str:
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
        said += _what_parts_say(refined)
    return said


def _what_parts_say(refined: Iterable[Surface]) -> str:
    """The words of a caption that say how many samples gave a surface its shape; empty without a part."""
    parts = sorted({(s.part_samples, s.samples) for s in refined if s.part_samples})
    of_all = " and ".join(f"{part:,} of the {samples:,}" for part, samples in parts)
    return f"Between the evaluated points the shape is that of {of_all} samples, corrected. " if parts else ""


def holes(surfaces: Iterable[tuple[str, Surface | Line | Path]]) -> str:
    """The number of points without a finite loss, for a caption; empty if there are none."""
    count = sum(int((~np.isfinite(surface.loss)).sum()) for _, surface in surfaces)
    return f"{count} points without a finite loss are left out. " if count else ""


def with_unit(name: str, results: Iterable[Surface | Line | Path | Topology]) -> str:
    """The name of a loss with its unit, as in "test loss (nat)", if the results share a unit."""
    unit = _unit(results)
    return f"{name} ({unit})" if unit else name


def _unit(results: Iterable[Surface | Line | Path | Topology]) -> str:
    units = {result.loss_unit for result in results}
    return units.pop() if len(units) == 1 else ""


def kinds_of_directions(kinds: Iterable[str]) -> str:
    """How the directions were made. Older results do not store this: their directions were filter-normalized."""
    all_kinds = list(kinds)
    drawn = "random, filter-normalized" + (", the same draw for all" if len(all_kinds) > 1 else "")
    named = {"filter-normalized": drawn}
    return "; ".join(dict.fromkeys(named.get(kind, kind) for kind in all_kinds))
