"""Results and figures that the tests of figures draw from."""

import matplotlib as mpl
import numpy as np
import pandas as pd

import figures
from landscape import Line, Surface

METHODS = ("SGD", "SAM", "NCSAM")


def runs():
    rng = np.random.default_rng(0)
    rows = []
    for rate in (0.0, 0.4):
        for method in METHODS:
            for seed in range(3):
                row = {
                    "dataset": "digits",
                    "noise_kind": "symmetric",
                    "method": method,
                    "noise_rate": rate,
                    "seed": seed,
                    "test_accuracy": rng.uniform(0.5, 1),
                }
                for loss in ("observed", "clean"):
                    for name in ("top_eigenvalue", "trace", "sharpness"):
                        row[f"{name}_{loss}"] = rng.uniform(1, 10)
                    row |= {f"top_eigenvalue_residual_{loss}": 0.01, f"trace_standard_error_{loss}": 0.02}
                    row[f"sharpness_rho_{loss}"] = 0.5
                rows.append(row)
    return pd.DataFrame(rows)


def histories():
    frame = runs().drop(columns="test_accuracy").merge(pd.DataFrame({"epoch": [1, 2, 3]}), how="cross")
    for name in (
        "test_accuracy",
        "memorized",
        "cos_compensated_sam_clean",
        "cos_plus_clean",
        "cos_minus_clean",
        "cos_gstar_noise",
    ):
        frame[name] = np.linspace(0.1, 0.9, len(frame))
    frame.loc[frame["noise_rate"] == 0, "memorized"] = np.nan
    return frame


def plane(scale=1.0, hole=False):
    axis = np.linspace(-1, 1, 5)
    loss = scale * (0.1 + axis[:, None] ** 2 + 2 * axis[None, :] ** 2)
    if hole:
        loss[0, 0], loss[0, 1] = np.nan, np.inf
    return Surface(axis, axis, loss, np.full((5, 5), 0.5), scale * 0.1, 0.5, np.ones(2), 0.0, 10)


def profile():
    axis = np.linspace(-1, 1, 5)
    return Line(axis, 0.1 + axis**2, np.full(5, 0.5), 0.1, 0.5, 1.0, 10)


FIGURES = {
    "training_curves": lambda: figures.training_curves(histories()),
    "curvature": lambda: figures.curvature(runs()),
    "sharpness_accuracy": lambda: figures.sharpness_accuracy(runs()),
    "alignment": lambda: figures.alignment(histories(), "NCSAM"),
    "contours": lambda: figures.contours(
        [("SGD", plane()), ("SAM", plane(3))], loss_name="loss", about="Seed 0."
    ),
    "relief": lambda: figures.relief(
        [("SGD", plane()), ("SAM", plane(3))], loss_name="loss", about="Seed 0."
    ),
    "lines": lambda: figures.lines(
        [("train", [("SGD", profile())]), ("test", [("SGD", profile())])], about="Seed 0."
    ),
}


def texts(figure):
    return [t.get_text() for t in figure.findobj(mpl.text.Text) if t.get_text()]


def caption_of(figure):
    return figure._supxlabel.get_text().replace("\n", " ")
