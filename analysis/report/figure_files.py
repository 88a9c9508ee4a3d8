"""Draws the figures that a study's results allow, from its files alone."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import figures
from analysis import store
from analysis.objectives import LABEL_WORDS
from analysis.plan.errors import check_known
from analysis.plan.reading import read_study
from analysis.plan.run_config import Identity
from analysis.run.measurements import DENSITY
from analysis.run.subject import LOSSES
from figures.style import PLAIN, TWO_COLUMNS, Style, drawing, wrong_labels
from ncsam.options import nearest

FORMATS = ("pdf", "png")
DRAWN = "drawn"
"""Name of the file that says which runs the figures show. It is written last."""
SPECTRUM_NAME = "Hessian of the cross-entropy with observed labels"
LOSS_NAMES = {
    **{loss: f"cross-entropy, {labels}" for loss, labels in LABEL_WORDS.items()},
    "test": "cross-entropy, clean test data",
}
KINDS = (
    "alignment",
    "contours",
    "curvature",
    "epochs",
    "lines",
    "page",
    "relief",
    "sharpness_accuracy",
    "spectra",
    "spectral_densities",
    "training_curves",
)
"""What can be drawn alone; "page" are the surfaces that can be turned in a browser."""


@dataclass(frozen=True)
class Wanted:
    """Which figures are drawn, of which methods, and how.

    Attributes:
        width: of each figure in inches.
        style: how text is written.
        only: some of `KINDS`; empty for all.
        methods: titles of methods; empty for all.
        formats: endings of the files that Matplotlib knows.
    """

    width: float = TWO_COLUMNS
    style: Style = PLAIN
    only: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    formats: tuple[str, ...] = FORMATS

    def __post_init__(self) -> None:
        known = Figure().canvas.get_supported_filetypes()
        for field, values, choices in (("only", self.only, KINDS), ("format", self.formats, known)):
            for value in values:
                check_known(value, choices, f"--{field}")

    @property
    def is_all(self) -> bool:
        """These are the figures that a study draws by itself."""
        return self == Wanted()


ALL = Wanted()


def draw_all(root: Path, wanted: Wanted = ALL) -> list[Path]:
    """Writes the figures into `figures/` of the study folder, and returns their paths.

    Args:
        root: the study's folder.
        wanted: which figures, and how; by default all, as PNG and PDF, as wide as a page.

    Raises:
        FileNotFoundError: not a study folder.
        ValueError: a method that the study does not have, or nothing that could be drawn.
    """
    runs = store.read_table(root)
    order = list(dict.fromkeys(runs["method"]))
    for method in wanted.methods:
        if method not in order:
            # titles hold commas
            hint = nearest(method, order)
            known = "; ".join(map(repr, order))
            raise ValueError(f"--method: unknown {method!r}; known: {known}{'; ' + hint if hint else ''}")
    sheet = _Sheet(root, wanted)
    order = [method for method in order if not wanted.methods or method in wanted.methods]
    _draw_tables(sheet, runs[runs["method"].isin(order)], order)
    _draw_landscapes(sheet, order)
    if not sheet.written:
        raise ValueError(f"--only: the results of {root} hold nothing for {', '.join(wanted.only)}")
    if wanted.is_all:
        store.write_text(root / "figures" / DRAWN, store.fingerprint(root))
    return sheet.written


class _Sheet:
    """The folder of figures, and what was written there."""

    def __init__(self, root: Path, wanted: Wanted) -> None:
        self.root, self.wanted = root, wanted
        self.written: list[Path] = []

    def wants(self, kind: str) -> bool:
        return not self.wanted.only or kind in self.wanted.only

    def add(self, kind: str, suffix: str, draw: Callable[..., Figure], *args: Any, **about: Any) -> None:
        """Draws and writes a figure, if figures of that kind are wanted."""
        if not self.wants(kind):
            return
        style = self.wanted.style
        figure = draw(*args, **about, width=self.wanted.width, style=style)
        # what text becomes is decided when a file is written: TrueType, which editors and journals take
        with drawing(style):
            # the layout is worked out once, not once a format
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            for ending in self.wanted.formats:
                # drawn in memory: what draws would leave tracebacks and open files on a full disk
                drawn = io.BytesIO()
                figure.savefig(drawn, format=ending)
                self.write(f"{kind}{suffix}.{ending}", drawn.getvalue())

    def write(self, name: str, content: bytes) -> None:
        self.written.append(self.root / "figures" / name)
        store.write_bytes(self.written[-1], content)


def _draw_tables(sheet: _Sheet, runs: Any, order: Sequence[str]) -> None:
    """The figures of the tables of runs and of epochs."""
    sheet.add("curvature", "", figures.curvature, runs)
    sheet.add("sharpness_accuracy", "", figures.sharpness_accuracy, runs)
    if not any(map(sheet.wants, ("alignment", "epochs", "training_curves"))):
        return
    histories = store.read_histories(sheet.root)
    histories = histories[histories["method"].isin(order)]
    histories = histories.assign(order=histories["method"].map(list(order).index))
    histories = histories.sort_values(["order", "noise_rate", "seed", "epoch"], ignore_index=True)
    noisy = histories[(histories["noise_rate"] > 0) & histories["cos_plus_clean"].notna()]
    compensating = list(dict.fromkeys(noisy["method"]))
    if compensating:
        sheet.add("alignment", "", figures.alignment, histories, compensating[0])
    training = read_study(sheet.root / "study.toml").training
    # the edge is that of gradient descent
    momentum = training.momentum if training.optimizer == "sgd" else None
    for rate in sorted(histories["noise_rate"].unique()):
        of_rate = histories[histories["noise_rate"] == rate]
        if (
            "probe_top_eigenvalue_observed" in of_rate
            and of_rate["probe_top_eigenvalue_observed"].notna().any()
        ):
            edge = {"momentum": momentum, "weight_decay": training.weight_decay}
            sheet.add("epochs", f"_{rate:g}", figures.sharpness_over_epochs, histories, rate, **edge)
    sheet.add("training_curves", "", figures.training_curves, histories)


def _draw_landscapes(sheet: _Sheet, order: Sequence[str]) -> None:
    """Surfaces, lines and spectra of each data set, noise rate and seed that has some."""
    shown_by = {
        **{f"surface/line-{loss}": ("lines",) for loss in LOSSES},
        **{f"surface/plane-{loss}": ("contours", "relief", "page") for loss in LOSSES},
        DENSITY: ("spectra", "spectral_densities"),
    }
    wanted = [name for name, kinds in shown_by.items() if any(map(sheet.wants, kinds))]
    found: dict[str, list[tuple[Identity, Any]]] = {name: [] for name in shown_by}
    for name, pairs in store.read_several_results(sheet.root, wanted).items():
        chosen = [pair for pair in pairs if pair[0].method in order]
        found[name] = sorted(chosen, key=lambda pair: order.index(pair[0].method))
    for place in sorted({_place(identity) for pairs in found.values() for identity, _ in pairs}):
        results = {
            name: [(who.method, result) for who, result in pairs if _place(who) == place]
            for name, pairs in found.items()
        }
        _draw_place(sheet, place, results)


def _draw_place(
    sheet: _Sheet, place: tuple[str, float, int], results: dict[str, list[tuple[str, Any]]]
) -> None:
    dataset, rate, seed = place
    suffix = f"_{rate:g}_seed{seed}"
    about = f"{dataset}: networks trained with {wrong_labels(rate)}, seed {seed}, after the last epoch."
    if densities := results[DENSITY]:
        named = {"matrix_name": SPECTRUM_NAME, "about": about}
        sheet.add("spectra", suffix, figures.spectra, densities, **named)
        sheet.add("spectral_densities", suffix, figures.spectral_densities, densities, **named)
    series = [(LOSS_NAMES[loss], results[f"surface/line-{loss}"]) for loss in LOSSES]
    if any(lines for _, lines in series):
        sheet.add("lines", suffix, figures.lines, series, about=about)
    for loss in LOSSES:
        if not (planes := results[f"surface/plane-{loss}"]):
            continue
        of_loss: dict[str, Any] = {"loss_name": LOSS_NAMES[loss], "about": about}
        sheet.add("contours", f"_{loss}{suffix}", figures.contours, planes, **of_loss)
        sheet.add("relief", f"_{loss}{suffix}", figures.relief, planes, **of_loss)
        if sheet.wants("page") and importlib.util.find_spec("plotly"):
            page = figures.interactive(planes, **of_loss)
            sheet.write(f"relief_{loss}{suffix}.html", page.encode())


def _place(run: Identity) -> tuple[str, float, int]:
    return run.dataset, run.noise_rate, run.seed


def is_current(root: Path) -> bool:
    """Whether the figures exist and show exactly the runs of the index."""
    drawn = root / "figures" / DRAWN
    return drawn.is_file() and drawn.read_text(encoding="utf-8") == store.fingerprint(root)
