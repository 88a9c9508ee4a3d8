"""The images whose labels are most suspicious, with given and proposed label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from figures.style import COLORS, PLAIN, TWO_COLUMNS, Style, drawing, finish, new_figure, points

SIDE = 0.62
"""Inches of an image."""
LONGEST_WORD = 12
"""Letters of a label that fit above an image."""


def contact_sheet(
    images: ArrayLike,
    given: Sequence[object],
    proposed: Sequence[object],
    *,
    about: str,
    ids: Sequence[object] | None = None,
    is_wrong: ArrayLike | None = None,
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """Images in their order, row by row, the given label above the proposed one.

    Args:
        images: (n, height, width), (n, 1 or 3 channels, height, width) or (n, height, width, 3), the most suspicious
            first; each is drawn between its own smallest and largest value.
        given: the labels' names.
        proposed: names of the labels that are proposed instead.
        about: which data and which criterion, for the caption.
        ids: of the samples, drawn below each image.
        is_wrong: bool (n,), where the truth is known: frames tell wrong labels from right ones.
        width: inches.
        style: how text is written.

    Raises:
        ValueError: no image, images of another form, or another number of labels than of images.
    """
    pictures = _as_pictures(np.asarray(images))
    for name, values in (("given", given), ("proposed", proposed), ("ids", ids), ("is_wrong", is_wrong)):
        if values is not None and len(np.asarray(values)) != len(pictures):
            raise ValueError(f"{name}: {len(np.asarray(values))} for {len(pictures)} images")
    lines = 2 + (ids is not None)
    columns = max(1, min(len(pictures), int(width / (SIDE + 0.12))))
    rows = -(-len(pictures) // columns)
    with drawing(style, **{"axes.grid": False}):
        figure = new_figure(width, rows * (SIDE + 0.13 * lines + 0.08) + 0.75)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for ax in axes:
            ax.set_axis_off()
        for i, (ax, picture) in enumerate(zip(axes, pictures, strict=False)):
            ax.imshow(picture, cmap="gray_r", interpolation="nearest")
            words = [str(given[i]), f"→ {proposed[i]}", *([] if ids is None else [f"#{ids[i]}"])]
            ax.set_title(
                "\n".join(_cut(word) for word in words), fontsize=points("x-small"), pad=2, linespacing=1.05
            )
            if is_wrong is not None:
                _frame(ax, bool(np.asarray(is_wrong)[i]))
        frames = "" if is_wrong is None else " Frame: orange, the given label is wrong; blue, it is right."
        finish(figure, style, f"{about} Above each image: given label, → proposed label.{frames}")
    return figure


def _frame(ax: Axes, is_wrong: bool) -> None:
    ax.set_axis_on()
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=COLORS[3] if is_wrong else COLORS[0], linewidth=1.6)
        spine.set_linestyle("-" if is_wrong else (0, (1.5, 1)))


def _cut(word: str) -> str:
    return word if len(word) <= LONGEST_WORD else f"{word[: LONGEST_WORD - 1]}…"


def _as_pictures(images: NDArray[np.generic]) -> NDArray[np.float64]:
    """Images between 0 and 1, channels last."""
    pictures = images.astype(np.float64)
    if pictures.ndim == 4 and pictures.shape[1] in (1, 3):
        pictures = pictures.transpose(0, 2, 3, 1)
    if pictures.ndim == 4 and pictures.shape[3] == 1:
        pictures = pictures[..., 0]
    if len(pictures) == 0 or not (pictures.ndim == 3 or (pictures.ndim == 4 and pictures.shape[3] == 3)):
        raise ValueError(
            f"images: must be one or more of (n, height, width), with 1 or 3 channels or none, got {images.shape}"
        )
    axes = tuple(range(1, pictures.ndim))
    low = pictures.min(axes, keepdims=True)
    spread = pictures.max(axes, keepdims=True) - low
    scaled: NDArray[np.float64] = (pictures - low) / np.where(spread > 0, spread, 1)
    return scaled
