"""Figures say what they show, whatever their runs hold."""

import dataclasses

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import figures
from figures import style
from landscape import Line, Path, SpectralDensity
from tests.figures.samples import FIGURES, METHODS, caption_of, histories, plane, profile, runs, texts


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_written_and_its_axes_are_labeled(name, tmp_path):
    figure = FIGURES[name]()
    figure.savefig(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").stat().st_size > 5000
    assert any(ax.get_xlabel() for ax in figure.axes)
    assert any(ax.get_ylabel() for ax in figure.axes)
    assert figure._supxlabel.get_text()


@pytest.mark.parametrize("name", ["training_curves", "curvature", "alignment"])
def test_the_caption_says_what_the_band_is_and_how_many_seeds(name):
    caption = FIGURES[name]()._supxlabel.get_text().replace("\n", " ")
    assert "3 seeds" in caption
    assert "smallest to largest" in caption


def test_every_method_is_named_once_beside_its_curve_or_in_the_legend():
    for name in ("training_curves", "curvature", "sharpness_accuracy"):
        assert sorted(labels(FIGURES[name]())) == sorted(METHODS)


def test_a_study_in_which_every_run_diverged_can_be_drawn(tmp_path):
    frame = runs()
    numbers = frame.columns.difference(["dataset", "noise_kind", "method", "noise_rate", "seed"])
    frame[numbers] = np.nan
    for draw in (figures.curvature, figures.sharpness_accuracy):
        draw(frame).savefig(tmp_path / "figure.png")


def test_curvature_that_all_seeds_share_can_be_drawn():
    """The mean of three 1.4s is above 1.4 by a rounding."""
    frame = runs()
    frame[["top_eigenvalue_clean", "trace_observed"]] = 1.4
    assert figures.curvature(frame).axes


def test_the_errors_of_curvature_are_those_of_both_losses_and_runs_without_a_value_are_counted():
    frame = runs()
    frame[["top_eigenvalue_clean", "trace_observed"]] = 2.0
    frame[["top_eigenvalue_residual_clean", "trace_standard_error_observed"]] = 0.5, 1.5
    assert "eigenvalue 25.0% (residual), trace 75.0%" in caption_of(figures.curvature(frame))
    assert "lack" not in caption_of(figures.curvature(frame))
    frame.loc[[3, 4], "sharpness_clean"] = np.nan
    frame.loc[4, "trace_clean"] = np.nan
    assert "2 of 18 runs lack a value" in caption_of(figures.curvature(frame))


def test_a_line_with_standard_errors_has_a_band():
    line = dataclasses.replace(profile(), loss_error=np.full(5, 0.1))
    figure = figures.lines([("train", [("SGD", line)])], about="")
    assert len(figure.axes[0].collections) == 1
    assert "two standard errors" in figure._supxlabel.get_text().replace("\n", " ")


def test_points_of_a_line_without_a_finite_loss_are_counted():
    line = profile()
    assert "finite" not in caption_of(figures.lines([("train", [("SGD", line)])], about=""))
    line.loss[:2] = np.nan, np.inf
    caption = caption_of(
        figures.lines([("train", [("SGD", line)]), ("test", [("SGD", profile())])], about="")
    )
    assert "2 points without a finite loss are left out." in caption


def test_paths_show_their_barriers():
    position = np.linspace(0, 1, 5)
    path = Path(position, position, position, 0.25, 0.5, "straight", 2.0, 2.0, "eval", 0, 10)
    figure = figures.paths([("apart", path)], loss_name="loss", about="")
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["apart: barrier 0.25 nat"]


def test_alignment_needs_runs_of_the_method():
    with pytest.raises(ValueError, match="^method"):
        figures.alignment(histories(), "BSAM")


def spectrum(outliers, nodes, weights):
    """A density of 100 eigenvalues as it is stored."""
    grid = np.linspace(-1, 1, 5)
    return SpectralDensity(
        eigenvalue=grid,
        density=grid,
        density_error=grid,
        count=grid,
        count_error=grid,
        outliers=np.array(outliers, dtype=float),
        outlier_residuals=np.zeros(len(outliers)),
        negative_fraction=0.0,
        negative_fraction_error=0.0,
        nodes=np.array(nodes, dtype=float),
        weights=np.array(weights, dtype=float),
        smoothing=0.1,
        dimension=100,
        products=10,
        matrix="hessian",
        samples=50,
    )


def test_spectra_count_the_eigenvalues_further_from_zero():
    density = spectrum([5, 4, -3], [[-1, 1], [-1, 1]], [[0.25, 0.75], [0.25, 0.75]])
    axes = figures.spectra([("SGD", density)], matrix_name="Hessian", about="").axes[0]
    drawn = {
        (float(x), round(float(y), 6))
        for line in axes.lines
        if line.get_linestyle() == "-"
        for x, y in line.get_xydata()
    }
    share = 97
    assert {(5, 1), (4, 2), (-3, 1)} <= drawn
    assert {(1, 2 + 0.75 * share), (-1, 1 + 0.25 * share)} <= drawn


@pytest.mark.parametrize(
    "densities",
    [
        [("SGD", spectrum([], [[0, 0], [0, 0]], [[1, 0], [1, 0]]))],
        [("SGD", spectrum([], [[1, 2], [1, 2]], [[0.5, 0.5], [0.5, 0.5]]))],
        [("SGD", spectrum([], np.full((2, 2), np.nan), np.full((2, 2), np.nan)))],
    ],
    ids=["zero", "positive, no outliers", "not finite"],
)
def test_spectra_of_any_kind_are_drawn(densities, tmp_path):
    figure = figures.spectra(densities, matrix_name="Hessian", about="here.")
    figure.savefig(tmp_path / "spectra.png")
    assert ("Not finite: SGD" in figure.get_supxlabel()) == bool(np.isnan(densities[0][1].nodes).any())


def test_the_forest_has_a_panel_for_each_unit_and_a_mark_for_each_estimate():
    common = {"low": -0.1, "high": 0.3, "margin": 0.01, "verdict": "supported"}
    effects = pd.DataFrame(
        [
            {"name": "accuracy", "estimate": 0.1, "unit": "share", "is_part": False, **common},
            {"name": "20%", "estimate": 0.2, "unit": "share", "is_part": True, **common},
            {"name": "cosine", "estimate": -0.1, "unit": "cosine", "is_part": False, **common},
            {"name": "none", "estimate": np.nan, "unit": "nat", "is_part": False, **common},
        ]
    )
    panels = figures.forest(effects).axes
    assert [panel.get_xlabel() for panel in panels] == ["share", "cosine"]
    marks = [[line.get_xdata()[0] for line in p.lines if line.get_marker() == "o"] for p in panels]
    assert marks == [[0.1, 0.2], [-0.1]]
    with pytest.raises(ValueError, match="^effects: "):
        figures.forest(effects.iloc[3:])


def labels(figure):
    """The names of curves: in legends, and beside the ends of curves."""
    named = [text.get_text().strip() for legend in figure.legends for text in legend.get_texts()]
    return named + [text.get_text().strip() for text in figure.findobj(mpl.text.Annotation)]


def test_methods_are_in_the_legend_whatever_their_name_and_wherever_they_have_runs():
    """matplotlib leaves out what begins with an underscore."""
    for draw, frame in (
        (figures.curvature, runs()),
        (figures.sharpness_accuracy, runs()),
        (figures.training_curves, histories()),
    ):
        frame["method"] = frame["method"].replace("SGD", "_SGD")
        assert sorted(labels(draw(frame))) == ["NCSAM", "SAM", "_SGD"]
        partly = frame[(frame["method"] != "NCSAM") | (frame["noise_rate"] > 0)]
        assert sorted(labels(draw(partly))) == ["NCSAM", "SAM", "_SGD"]
    series = [("train", [("_SGD", profile())]), ("test", [("_SGD", profile()), ("SAM", profile())])]
    assert sorted(labels(figures.lines(series, about=""))) == ["SAM", "_SGD"]
    density = spectrum([5], [[1, 2], [1, 2]], [[0.5, 0.5], [0.5, 0.5]])
    assert labels(figures.spectra([("_SGD", density)], matrix_name="Hessian", about="")) == ["_SGD"]


LONG = "a method with a name of just as many as sixty-four characters, 64"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.lines([("train", [(LONG, profile())])], about=""),
        lambda: figures.alignment(histories(), "NCSAM"),
        lambda: figures.training_curves(histories().assign(method=LONG)),
        lambda: figures.contours([(f"{i}{LONG}", plane()) for i in range(3)], loss_name="loss", about=""),
        lambda: figures.relief([(f"{i}{LONG}", plane()) for i in range(3)], loss_name="loss", about=""),
    ],
    ids=["lines", "alignment", "training_curves", "contours", "relief"],
)
def test_long_names_stay_in_the_figure_and_off_one_another(draw):
    figure = draw()
    figure.draw_without_rendering()
    boxes = [legend.get_window_extent() for legend in figure.legends]
    boxes += [ax.title.get_window_extent() for ax in figure.axes if ax.get_title()]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    assert all(box.y0 >= 0 and box.y1 <= figure.bbox.height for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("difference", [0.0, 1e-16, 1e-12])
def test_a_logarithmic_axis_of_values_that_are_equal_but_for_rounding_is_drawn(difference):
    values = np.array([2.557, 2.557 * (1 + 3 * difference)])
    figure = style.new_figure(3.3, 2.0)
    ax = figure.subplots()
    ax.plot([0, 1], values)
    style.logarithmic(ax.yaxis, values)
    figure.draw_without_rendering()
    low, high = ax.get_ylim()
    assert low < 0.9 * 2.557
    assert high > 1.1 * 2.557


@pytest.mark.parametrize("smallest", [1e-9, 0.02, 0.9])
def test_a_logarithmic_axis_has_numbers_whatever_its_range(smallest):
    axis = np.linspace(-1, 1, 5)
    line = Line(axis, np.geomspace(smallest, 3, 5), np.full(5, 0.5), 1.0, 0.5, 1.0, 10)
    figure = figures.lines([("train", [("SGD", line)])], about="")
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    assert sum(low <= tick <= high for tick in figure.axes[0].get_yticks()) >= 2


def test_what_is_zero_or_negative_in_one_panel_is_seen_in_it():
    """Panels that share an axis share its scale."""
    line = profile()
    line.loss[2] = 0.0
    for order in (1, -1):
        series = [("train", [("SGD", line)]), ("test", [("SGD", profile())])][::order]
        assert figures.lines(series, about="").axes[0].get_yscale() == "linear"
    frame = runs()
    frame.loc[0, "trace_clean"] = -1.0
    assert [ax.get_yscale() for ax in figures.curvature(frame).axes[:3]] == ["log", "linear", "log"]


def test_an_infinite_curvature_is_counted_and_leaves_the_mean_to_the_others():
    frame = runs()
    frame.loc[0, "trace_clean"] = np.inf
    figure = figures.curvature(frame)
    assert "1 of 18 runs lack a value" in caption_of(figure)
    first = figure.axes[4].containers[0].lines[0].get_ydata()
    assert first[0] == pytest.approx(frame["trace_clean"][1:3].mean())


def test_runs_that_end_early_are_counted():
    frame = histories()
    assert "end before" not in caption_of(figures.training_curves(frame))
    ended = frame[(frame["seed"] > 0) | (frame["method"] != "SGD") | (frame["epoch"] < 3)]
    assert "2 of 18 runs end before the last epoch" in caption_of(figures.training_curves(ended))


def test_points_without_a_number_are_counted():
    frame = runs()
    frame.loc[[0, 1], "sharpness_clean"] = np.nan, np.inf
    assert "2 of 18 runs lack a number" in caption_of(figures.sharpness_accuracy(frame))


def test_each_scatter_panel_says_kendalls_tau_of_the_methods_means():
    frame = runs()
    place = frame["method"].map({"SGD": 0, "SAM": 1, "NCSAM": 2})
    frame["test_accuracy"] = 0.5 + 0.1 * place + 0.001 * frame["seed"]
    frame["sharpness_observed"] = 3.0 - place
    frame["sharpness_clean"] = 1.0 + place
    frame["top_eigenvalue_observed"] = place.map({0: 1.0, 1: 3.0, 2: 2.0})
    panels = figures.sharpness_accuracy(frame).axes
    assert [panel.get_title().split("\n")[-2:] for panel in panels[::2]] == [
        ["τ = -1.00, p = 0.33", "3 methods"],
        ["τ = +0.33, p = 1", "3 methods"],
        ["τ = +1.00, p = 0.33", "3 methods"],
    ]
    two = figures.sharpness_accuracy(frame[frame["method"] != "SGD"])
    assert not any("τ" in panel.get_title() for panel in two.axes)


def test_a_study_of_one_epoch_is_seen():
    figure = figures.training_curves(histories().query("epoch == 1"))
    assert all(line.get_marker() not in ("", "None", None) for line in figure.axes[0].lines)


def test_a_noise_rate_is_told_as_it_is():
    frame = runs()
    frame["noise_rate"] = frame["noise_rate"].replace(0.4, 0.4021)
    assert any(text.startswith("40.21% wrong labels") for text in texts(figures.sharpness_accuracy(frame)))
    assert {"0%", "40.21%"} <= set(texts(figures.curvature(frame)))
    one = figures.curvature(frame[frame["noise_rate"] > 0].head(1))
    assert "40.21%" in texts(one)


def test_spectra_are_stairs():
    """Between the bulk and an outlier there is no eigenvalue."""
    density = spectrum([5, -3], [[-1, 1], [-1, 1]], [[0.25, 0.75], [0.25, 0.75]])
    figure = figures.spectra([("SGD", density)], matrix_name="Hessian", about="")
    assert [line.get_drawstyle() for line in figure.axes[0].lines[:2]] == ["steps-post", "steps-pre"]


def test_panels_without_a_number_say_why():
    frame = histories()
    frame["test_accuracy"] = np.nan
    assert texts(figures.training_curves(frame)).count("no number") == 2
    assert texts(figures.training_curves(histories())).count("no wrong labels") == 1
