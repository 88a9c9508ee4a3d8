"""Draws every figure that a study's results allow, from its files alone."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

import figures
from analysis import store
from analysis.plan.run_config import Identity
from analysis.run.measurements import DENSITY, LOSSES
from figures.style import RC, wrong_labels

FORMATS = ("pdf", "png")
DRAWN = "drawn"
"""Name of the file that says which runs the figures show. It is written last."""
SPECTRUM_NAME = "Hessian of the training loss with observed labels"
LOSS_NAMES = {
    "observed": "training loss, observed labels",
    "clean": "training loss, true labels",
    "test": "loss on clean test data",
}


def draw_all(root: Path) -> Path:
    """Writes the figures as PNG and PDF into `figures/` of the study folder, and returns the path of `figures/`.

    Raises:
        FileNotFoundError: the folder is no study's.
    """
    runs = store.read_table(root)
    order = list(dict.fromkeys(runs["method"]))
    histories = store.read_histories(root)
    histories["order"] = histories["method"].map(order.index)
    histories = histories.sort_values(["order", "noise_rate", "seed", "epoch"], ignore_index=True)

    _save(figures.curvature(runs), root, "curvature")
    _save(figures.sharpness_accuracy(runs), root, "sharpness_accuracy")
    noisy = histories[(histories["noise_rate"] > 0) & histories["cos_plus_clean"].notna()]
    compensating = list(dict.fromkeys(noisy["method"]))
    if compensating:
        _save(figures.alignment(histories, compensating[0]), root, "alignment")
    _draw_landscapes(root, order)
    _save(figures.training_curves(histories), root, "training_curves")
    store.write_text(root / "figures" / DRAWN, store.fingerprint(root))
    return root / "figures"


def _draw_landscapes(root: Path, order: list[str]) -> None:
    names = [f"surface/line-{loss}" for loss in LOSSES]
    names += [*(f"surface/plane-{loss}" for loss in LOSSES), DENSITY]
    found = {
        name: sorted(store.read_results(root, name), key=lambda pair: order.index(pair[0].method))
        for name in names
    }
    places = {_place(identity) for pairs in found.values() for identity, _ in pairs}
    for place in sorted(places):
        dataset, rate, seed = place

        def of_place(name: str, place: tuple[str, float, int] = place) -> list[tuple[str, Any]]:
            return [(who.method, result) for who, result in found[name] if _place(who) == place]

        suffix = f"_{rate:g}_seed{seed}"
        about = f"{dataset}: networks trained with {wrong_labels(rate)}, seed {seed}, after the last epoch."
        if densities := of_place(DENSITY):
            figure = figures.spectra(densities, matrix_name=SPECTRUM_NAME, about=about)
            _save(figure, root, f"spectra{suffix}")
        series = [(LOSS_NAMES[loss], of_place(f"surface/line-{loss}")) for loss in LOSSES]
        _save(figures.lines(series, about=about), root, f"lines{suffix}")
        for loss in LOSSES:
            if not (planes := of_place(f"surface/plane-{loss}")):
                continue
            for kind, draw in (("contours", figures.contours), ("relief", figures.relief)):
                figure = draw(planes, loss_name=LOSS_NAMES[loss], about=about)
                _save(figure, root, f"{kind}_{loss}{suffix}")
            if importlib.util.find_spec("plotly"):
                page = figures.interactive(planes, loss_name=LOSS_NAMES[loss], about=about)
                store.write_text(root / "figures" / f"relief_{loss}{suffix}.html", page)


def _place(run: Identity) -> tuple[str, float, int]:
    return run.dataset, run.noise_rate, run.seed


def is_current(root: Path) -> bool:
    """Whether the figures exist and show exactly the runs of the index."""
    drawn = root / "figures" / DRAWN
    return drawn.is_file() and drawn.read_text(encoding="utf-8") == store.fingerprint(root)


def _save(figure: Figure, root: Path, name: str) -> None:
    # the layout is computed once, not once for each format
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for suffix in FORMATS:
        # drawn in memory, because matplotlib leaves tracebacks and open files on a full disk
        drawn = io.BytesIO()
        # the setting counts while a file is written: text becomes TrueType, which editors and journals accept
        with mpl.rc_context(RC):
            figure.savefig(drawn, format=suffix)
        store.write_bytes(root / "figures" / f"{name}.{suffix}", drawn.getvalue())
