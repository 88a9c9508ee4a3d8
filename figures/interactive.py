"""Surfaces in three dimensions on one self-contained page, which can be turned and zoomed without a network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from figures.scale import height_of, holes, loss_at, robust_range, what_levels_say, with_unit
from figures.style import Titled
from landscape import Surface

HEIGHT = "min(82vh, 100vw)"
"""Height of the plot in CSS. The box would not fit into a plot that is much higher than wide, as on a telephone."""


def interactive(surfaces: Titled[Surface], *, loss_name: str, about: str, slider: bool = False) -> str:
    """The text of an HTML page with the surfaces of several models on one scale.

    The page shows one surface at a time, or all. Points without a finite loss are holes, which the note below the
    surface counts. The page contains the drawing script (some 4 MB), so that it needs no network.

    Args:
        surfaces: (title, surface) of each model.
        loss_name: name of the loss.
        about: a sentence about data and seed.
        slider: whether the surfaces are moments of one training, through which a slider leads.

    Raises:
        ModuleNotFoundError: plotly is not installed.
        ValueError: no point has a finite loss.
    """
    try:
        import plotly.graph_objects as plotly
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the interactive page needs plotly: pip install 'ncsam[plots]'") from error
    low, high = robust_range([surface.loss for _, surface in surfaces])
    figure = plotly.Figure()
    # plotly would interpret tags in a title
    titles = [html.escape(title, quote=False) for title, _ in surfaces]
    for index, (title, (_, surface)) in enumerate(zip(titles, surfaces, strict=True)):
        _add_model(figure, title, surface, low, high, visible=index == 0)
    figure.update_layout(
        **(_slider(titles) if slider else _menu(titles)),
        margin={"l": 0, "r": 0, "t": 30, "b": 0},
        **_axes(with_unit(loss_name, (surface for _, surface in surfaces)), low, high),
    )
    plot = figure.to_html(include_plotlyjs=True, full_html=False, default_height=HEIGHT)
    scale = "logarithmic" if low > 0 else "linear"
    red = "the model at that moment" if slider else "the trained model"
    note = f"{about} Red: {red}. Height: loss, {scale}. {what_levels_say(surfaces, high)}{holes(surfaces)}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(loss_name)}</title>'
        f'</head>\n<body style="font-family: sans-serif">\n{plot}\n<p>{html.escape(note)}</p>\n</body></html>\n'
    )


def _add_model(figure: Any, title: str, surface: Surface, low: float, high: float, *, visible: bool) -> None:
    """Adds the surface of one model, and a red mark for the model itself."""
    # plotly's rows are the second axis
    height, loss = height_of(surface.loss, low, high).T, surface.loss.T
    figure.add_surface(
        x=surface.alpha,
        y=surface.beta,
        z=height,
        text=[[f"loss {value:.4g}" for value in row] for row in loss],
        hovertemplate="α %{x:.3g}, β %{y:.3g}<br>%{text}<extra>" + title + "</extra>",
        coloraxis="coloraxis",
        name=title,
        visible=visible,
    )
    figure.add_scatter3d(
        x=[0],
        y=[0],
        z=height_of(np.array([surface.center_loss]), low, high),
        mode="markers",
        marker={"color": "red", "size": 4},
        hovertemplate=f"the model: loss {surface.center_loss:.4g}<extra></extra>",
        name=title,
        showlegend=False,
        visible=visible,
    )


def _axes(loss_name: str, low: float, high: float) -> dict[str, Any]:
    """The color scale and the box, which are the same for all surfaces."""
    bottom, top = height_of(np.array([low, high]), low, high)
    ticks = np.linspace(bottom, top, 6)
    labels = [loss_at(tick, low, high) for tick in ticks]
    color_scale = {
        "cmin": bottom,
        "cmax": top,
        "colorscale": "Viridis",
        "colorbar": {
            "title": {"text": loss_name, "side": "right"},
            "tickvals": ticks,
            "ticktext": labels,
            "len": 0.8,
            "thickness": 15,
        },
    }
    scene = {
        "xaxis_title": "α",
        "yaxis_title": "β",
        "zaxis": {"title": "loss", "range": [bottom, top], "tickvals": ticks, "ticktext": labels},
        "aspectmode": "manual",
        "aspectratio": {"x": 1, "y": 1, "z": 0.7},
        # the camera is far enough away to show the near corner too
        "camera": {"eye": {"x": 1.5, "y": 1.5, "z": 1.1}},
    }
    return {"coloraxis": color_scale, "scene": scene}


def _slider(titles: Sequence[str]) -> dict[str, Any]:
    # without the button that shows all
    steps = _buttons(titles)[: len(titles)]
    # the padding holds the names of the first and the last moment, which are centered below the ends
    padding = {"t": 10, "b": 20, "l": 40, "r": 40}
    return {"sliders": [{"steps": steps, "currentvalue": {"prefix": ""}, "pad": padding}]}


def _menu(titles: Sequence[str]) -> dict[str, Any]:
    return {"updatemenus": [{"buttons": _buttons(titles), "x": 0.02, "xanchor": "left"}]}


def _buttons(titles: Sequence[str]) -> list[dict[str, object]]:
    """Buttons that show one model, or all of them one above the other. Each model is a surface and a mark."""
    shown = [[i == index for i in range(len(titles)) for _ in range(2)] for index in range(len(titles))]
    named = list(zip(titles, shown, strict=True))
    if len(titles) > 1:
        named.append(("all", [True] * (2 * len(titles))))
    return [{"label": title, "method": "update", "args": [{"visible": seen}]} for title, seen in named]
