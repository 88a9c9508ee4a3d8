"""Figures say what they show, and draw holes as holes."""

import dataclasses
import re
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import figures
from landscape import Line, Path, SpectralDensity, Surface, Trajectory

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


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_written_and_its_axes_are_labelled(name, tmp_path):
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


def test_every_method_is_in_the_legend_once():
    for name in ("training_curves", "curvature", "sharpness_accuracy"):
        (legend,) = FIGURES[name]().legends
        assert [t.get_text() for t in legend.get_texts()] == list(METHODS)


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


def caption_of(figure):
    return figure._supxlabel.get_text().replace("\n", " ")


def test_surfaces_side_by_side_share_one_colour_scale():
    figure = FIGURES["contours"]()
    limits = {
        c.norm.vmin: c.norm.vmax for ax in figure.axes[:2] for c in ax.collections if hasattr(c, "norm")
    }
    assert limits[0.1] == pytest.approx(9.3)


@pytest.mark.parametrize(
    ("panels", "rows", "across"), [(1, 1, 1), (5, 1, 5), (7, 2, 4), (10, 2, 5), (11, 3, 4)]
)
@pytest.mark.parametrize("draw", [figures.contours, figures.relief])
def test_many_models_go_into_rows_of_at_most_five(draw, panels, rows, across):
    figure = draw([(f"model {i}", plane()) for i in range(panels)], loss_name="loss", about="Seed 0.")
    shown = [ax for ax in figure.axes if ax.get_title()]
    assert len(shown) == panels
    assert {ax.get_subplotspec().get_gridspec().get_geometry() for ax in shown} == {(rows, across)}


def test_points_without_a_finite_loss_are_holes_and_counted():
    figure = figures.contours([("SGD", plane(hole=True))], loss_name="loss", about="Seed 0.")
    assert "2 points without a finite loss" in figure._supxlabel.get_text().replace("\n", " ")


def test_a_loss_of_zero_is_no_hole_in_the_relief():
    surface = plane()
    surface.loss[2, 2] = 0.0
    figure = figures.relief([("SGD", surface)], loss_name="loss", about="Seed 0.")
    (drawn,) = figure.axes[0].collections
    assert (drawn.get_facecolor()[:, 3] == 1).all()


def outlying(factor):
    """A bowl of losses from 0.1 to 3.1, one corner far above all."""
    surface = plane()
    surface.loss[-1, -1] *= factor
    return surface


def test_one_outlier_does_not_flatten_the_basin_and_is_counted():
    figure = figures.contours([("SGD", outlying(1e8))], loss_name="loss", about="Seed 0.")
    assert min(c.norm.vmax for c in figure.axes[0].collections if c.norm.vmax) < 100
    assert "1 points beyond" in figure._supxlabel.get_text().replace("\n", " ")
    usual = figures.contours([("SGD", outlying(3))], loss_name="loss", about="Seed 0.")
    assert "beyond" not in usual._supxlabel.get_text()


@pytest.mark.parametrize("shift", [-0.1, -2.0])
def test_losses_of_zero_and_below_are_drawn(shift, tmp_path):
    surface = plane()
    surface.loss[:] += shift
    for draw in (figures.contours, figures.relief):
        draw([("SGD", surface)], loss_name="loss", about="").savefig(tmp_path / "figure.png")


def test_the_lowest_point_and_the_path_of_the_training_are_marked():
    surface = plane()
    surface.loss[1, 3] = 0.01
    walk = Trajectory(np.array([[1.0, 0.5], [0.0, 0.0]]), np.zeros(2), np.full(2, 0.5))
    figure = figures.contours([("SGD", surface)], loss_name="loss", about="", trajectories={"SGD": walk})
    drawn = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    assert [[-0.5, 0.5]] in drawn
    assert [[1.0, 0.5], [0.0, 0.0]] in drawn
    assert "path" in figure._supxlabel.get_text()


def test_a_refined_surface_says_how_much_of_it_was_evaluated():
    surface = plane()
    evaluated = np.zeros((5, 5), dtype=bool)
    evaluated[0] = True
    refined = dataclasses.replace(
        surface, evaluated=evaluated, loss_interpolation_error=np.where(evaluated, 0, 0.03)
    )
    text = figures.contours([("SGD", refined)], loss_name="loss", about="")._supxlabel.get_text()
    assert "20% of the points are evaluated, the others within about 0.03" in text.replace("\n", " ")


def test_the_interactive_page_stands_alone_and_counts_its_holes():
    page = figures.interactive(
        [("SGD & co", plane(hole=True)), ("SAM", plane(3))], loss_name="loss", about="Seed 0."
    )
    assert "2 points without a finite loss" in page
    assert not re.search(r"<(script|link)[^>]*(src|href)=", page)
    # an older library names the function in its own text too
    (plot,) = re.finditer(r'Plotly\.newPlot\(\s*"', page)
    # JSON has no NaN: a hole is null
    assert "NaN" not in page[plot.start() :]


def test_without_plotly_the_page_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ModuleNotFoundError, match=r"ncsam\[plots\]"):
        figures.interactive([("SGD", plane())], loss_name="loss", about="")


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


def test_a_surface_without_any_finite_loss_is_refused():
    empty = plane()
    broken = Surface(**{**vars(empty), "loss": np.full((5, 5), np.nan)})
    with pytest.raises(ValueError, match="^surfaces"):
        figures.contours([("SGD", broken)], loss_name="loss", about="")


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
    return [text.get_text().strip() for legend in figure.legends for text in legend.get_texts()]


def test_methods_are_in_the_legend_whatever_their_name_and_wherever_they_have_runs():
    """matplotlib leaves out what begins with an underscore."""
    for draw, frame in (
        (figures.curvature, runs()),
        (figures.sharpness_accuracy, runs()),
        (figures.training_curves, histories()),
    ):
        frame["method"] = frame["method"].replace("SGD", "_SGD")
        assert labels(draw(frame)) == ["_SGD", "SAM", "NCSAM"]
        partly = frame[(frame["method"] != "NCSAM") | (frame["noise_rate"] > 0)]
        assert labels(draw(partly)) == ["_SGD", "SAM", "NCSAM"]
    series = [("train", [("_SGD", profile())]), ("test", [("_SGD", profile()), ("SAM", profile())])]
    assert labels(figures.lines(series, about="")) == ["_SGD", "SAM"]
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


def test_a_study_of_one_epoch_is_seen():
    figure = figures.training_curves(histories().query("epoch == 1"))
    assert {line.get_marker() for line in figure.axes[0].lines} == {"o"}


def test_a_noise_rate_is_told_as_it_is():
    frame = runs()
    frame["noise_rate"] = frame["noise_rate"].replace(0.4, 0.4021)
    assert "40.21% wrong labels" in texts(figures.sharpness_accuracy(frame))
    assert {"0%", "40.21%"} <= set(texts(figures.curvature(frame)))
    one = figures.curvature(frame[frame["noise_rate"] > 0].head(1))
    assert "40.21%" in texts(one)


def test_the_ticks_of_a_flat_relief_differ():
    surface = plane()
    surface.loss[:] = 2.3 + 0.001 * surface.loss
    figure = figures.relief([("SGD", surface)], loss_name="loss", about="")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    shown = [ax.zaxis.get_major_formatter()(tick, 0) for tick in ax.get_zticks()]
    assert len(set(shown)) == len(shown)


def test_a_hole_of_the_relief_has_no_colour_of_its_own():
    surface = plane()
    surface.loss[2, 2] = np.inf
    figure = figures.relief([("SGD", surface)], loss_name="loss", about="")
    (drawn,) = figure.axes[0].collections
    # the piece whose own corner is the hole
    assert (drawn.get_facecolor()[:, 3] == 0).sum() == 1


def test_a_narrow_plane_is_not_drawn_as_a_line():
    wide = plane()
    narrow = dataclasses.replace(wide, beta=wide.beta / 10)
    for surface, aspect in ((wide, 1.0), (narrow, "auto")):
        ax = figures.contours([("SGD", surface)], loss_name="loss", about="").axes[0]
        assert ax.get_aspect() == aspect


def test_a_title_says_a_small_loss_in_its_digits_and_no_accuracy_where_there_is_none():
    surface = dataclasses.replace(plane(), center_loss=0.00123, center_accuracy=np.nan)
    ax = figures.contours([("SGD", surface)], loss_name="loss", about="").axes[0]
    assert ax.get_title() == "SGD\ncentre 0.0012"


def test_a_path_of_no_surface_and_lines_of_no_model_are_refused():
    walk = Trajectory(np.zeros((2, 2)), np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="^trajectories: no surface has the title 'SAM'; known: SGD"):
        figures.contours([("SGD", plane())], loss_name="loss", about="", trajectories={"SAM": walk})
    with pytest.raises(ValueError, match="^series: holds no line"):
        figures.lines([("train", [])], about="")


def test_spectra_are_stairs():
    """Between the bulk and an outlier there is no eigenvalue."""
    density = spectrum([5, -3], [[-1, 1], [-1, 1]], [[0.25, 0.75], [0.25, 0.75]])
    figure = figures.spectra([("SGD", density)], matrix_name="Hessian", about="")
    assert [line.get_drawstyle() for line in figure.axes[0].lines[:2]] == ["steps-post", "steps-pre"]


def test_the_interactive_page_shows_a_title_as_it_is():
    """plotly would take <b> for bold."""
    page = figures.interactive([("<b>SGD", plane()), ("SAM", plane(3))], loss_name="loss", about="")
    plot = page[page.rindex("Plotly.newPlot") :]
    assert plot.count("&lt;b&gt;SGD") >= 2
    assert r"\u003cb\u003eSGD" not in plot


def test_panels_without_a_number_say_why():
    frame = histories()
    frame["test_accuracy"] = np.nan
    assert texts(figures.training_curves(frame)).count("no number") == 2
    assert texts(figures.training_curves(histories())).count("no wrong labels") == 1
