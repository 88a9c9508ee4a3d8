"""The pictures of the report, as data URLs of SVG images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import figures
from analysis import store
from analysis.plan.run_config import Identity
from analysis.report.figure_files import LOSS_NAMES, SPECTRUM_NAME
from analysis.run.measurements import DENSITY
from analysis.run.subject import LOSSES
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


Results = Mapping[str, list[store.StoredResult]]
"""Name of a group of the run files -> the results of all runs that have the group."""


def results_shown(root: Path) -> Results:
    """The surfaces, lines and spectra of a study. Pictures read from the files what they show, and no more."""
    kinds = [f"surface/{kind}-{loss}" for kind in ("plane", "line") for loss in LOSSES]
    return store.find_results(root, [*kinds, DENSITY])


def landscape_of_two(results: Results, table: pd.DataFrame) -> str:
    """The first two methods with a finite surface, at the largest noise rate that has one; empty if none has."""
    order = list(map(str, dict.fromkeys(table["method"])))
    stored = results["surface/plane-observed"]
    for rate in sorted({each.identity.noise_rate for each in stored}, reverse=True):
        here = [each for each in stored if each.identity.noise_rate == rate]
        found = (_first_finite([each for each in here if each.identity.method == method]) for method in order)
        shown = list(islice((pair for pair in found if pair), 2))
        if shown:
            runs = table[table["noise_rate"] == rate]
            panels = [
                (run.method, _numbers(runs[runs["method"] == run.method]), plane) for run, plane in shown
            ]
            about = f"{shown[0][0].dataset}, {percent(rate)} wrong labels."
            return embedded(
                figures.shaded_relief(panels, loss_name=LOSS_NAMES["observed"], about=about, width=WIDTH)
            )
    return ""


def _first_finite(stored: list[store.StoredResult]) -> tuple[Identity, Surface] | None:
    """The first surface without holes, with its run."""
    read = ((each.identity, each.read()) for each in stored)
    return next(((run, plane) for run, plane in read if np.isfinite(plane.loss).all()), None)


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
    places = [_place(each.identity) for stored in results.values() for each in stored]
    if not places:
        return []
    place = min(places)
    shown = [
        each
        for stored in results.values()
        for each in stored
        if _place(each.identity) == place and each.identity.method in order
    ]
    shown.sort(key=lambda each: order.index(each.identity.method))
    here: dict[str, list[tuple[str, Any]]] = {name: [] for name in results}
    for each, result in zip(shown, store.read_together(shown), strict=True):
        here[each.name].append((each.identity.method, result))
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


def _place(run: Identity) -> tuple[float, str, int]:
    """Where a run belongs. The smallest place has the largest noise rate."""
    return -run.noise_rate, run.dataset, run.seed
