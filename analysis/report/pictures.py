"""The pictures of the report, as data URLs of SVG images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import figures
from analysis import store
from analysis.plan.run_config import Identity
from analysis.report.figure_files import DENSITY, LOSS_NAMES, SPECTRUM_NAME
from analysis.run.measurements import LOSSES
from figures.sharpness_accuracy import MEASURES
from figures.style import PLAIN, drawing
from landscape import Surface
from landscape.results.wording import percent

WIDTH = 5.0
"""Inches of a picture: between a phone and half a printed page."""


def embedded(figure: Figure) -> str:
    """A figure as the data URL of an SVG image. Text stays text, and dense facets become one bitmap."""
    held = io.BytesIO()
    # the same figure gives the same text
    with drawing(PLAIN), mpl.rc_context({"svg.hashsalt": "ncsam"}):
        figure.savefig(held, format="svg", dpi=110, metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(held.getvalue()).decode()}"


Results = Mapping[str, list[tuple[Identity, Any]]]
"""Name of a group of the run files -> (identity of the run, result) of all runs that have the group."""


def results_shown(root: Path) -> Results:
    """The surfaces, lines and spectra of a study, from its files."""
    kinds = [f"surface/{kind}-{loss}" for kind in ("plane", "line") for loss in LOSSES]
    return store.read_several_results(root, [*kinds, DENSITY])


def landscape_of_two(results: Results, table: pd.DataFrame) -> str:
    """The first two methods with a surface, at the largest noise rate with surfaces; empty if there are none."""
    found = [
        (run, plane) for run, plane in results["surface/plane-observed"] if np.isfinite(plane.loss).all()
    ]
    if not found:
        return ""
    rate = max(run.noise_rate for run, _ in found)
    planes: dict[str, Surface] = {}
    for run, plane in found:
        if run.noise_rate == rate:
            planes.setdefault(run.method, plane)
    order = [method for method in dict.fromkeys(table["method"]) if method in planes][:2]
    runs = table[table["noise_rate"] == rate]
    panels = [
        (method, _numbers(runs[runs["method"] == method]), planes[method]) for method in map(str, order)
    ]
    about = f"{found[0][0].dataset}, {percent(rate)} wrong labels."
    figure = figures.shaded_relief(panels, loss_name=LOSS_NAMES["observed"], about=about, width=WIDTH)
    return embedded(figure)


def _numbers(runs: pd.DataFrame) -> str:
    parts = [f"accuracy {100 * runs['test_accuracy'].mean():.1f}%"]
    if np.isfinite(eigenvalue := runs["top_eigenvalue_observed"].mean()):
        parts.append(f"top eigenvalue {eigenvalue:.3g}")
    return "  ·  ".join(parts)


def scatter(table: pd.DataFrame) -> str:
    """Sharpness against accuracy at the largest noise rate; the top eigenvalue if no sharpness was measured."""
    runs = table[table["noise_rate"] == table["noise_rate"].max()]
    measured = [measure for measure in MEASURES if measure[0] in runs and runs[measure[0]].notna().any()]
    return embedded(figures.sharpness_accuracy(runs, measures=measured[:1], width=WIDTH)) if measured else ""


def landscapes(results: Results, table: pd.DataFrame) -> list[tuple[str, str]]:
    """(title, picture) of surfaces, lines and spectra, at the largest noise rate and first seed with surfaces."""
    order = list(dict.fromkeys(table["method"]))
    places = [(-run.noise_rate, run.dataset, run.seed) for pairs in results.values() for run, _ in pairs]
    if not places:
        return []
    place = min(places)
    here = {
        name: sorted(
            (
                (run.method, result)
                for run, result in pairs
                if (-run.noise_rate, run.dataset, run.seed) == place
            ),
            key=lambda pair: order.index(pair[0]),
        )
        for name, pairs in results.items()
    }
    about = f"{place[1]}, {percent(-place[0])} wrong labels, seed {place[2]}."
    drawn = []
    for loss in LOSSES:
        if planes := here[f"surface/plane-{loss}"]:
            figure = figures.contours(planes, loss_name=LOSS_NAMES[loss], about=about, width=WIDTH)
            drawn.append((f"Surfaces: {LOSS_NAMES[loss]}", embedded(figure)))
    series = [(LOSS_NAMES[loss], here[f"surface/line-{loss}"]) for loss in LOSSES]
    if any(lines for _, lines in series):
        drawn.append(("Lines", embedded(figures.lines(series, about=about, width=WIDTH))))
    if densities := here[DENSITY]:
        figure = figures.spectral_densities(densities, matrix_name=SPECTRUM_NAME, about=about, width=WIDTH)
        drawn.append(("Spectra", embedded(figure)))
    return drawn
