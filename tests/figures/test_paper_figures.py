"""Figures for a paper: their width, their text, and what is read without color."""

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import figures
from analysis.store.stability_edge import descent_edge
from figures.panels import spread_out
from figures.scale import finer, is_smooth, round_losses
from figures.style import RC, looks
from landscape import Surface
from tests.figures.samples import caption_of, histories, plane, profile, runs, texts
from tests.figures.test_figures import spectrum

DENSITY = spectrum([5, -3], [[-1, 1], [-1, 1]], [[0.25, 0.75], [0.25, 0.75]])
EFFECTS = pd.DataFrame(
    [
        {"name": "accuracy > 0", "estimate": 0.1, "low": 0.05, "high": 0.15, "is_part": False},
        {"name": "20%", "estimate": 0.2, "low": np.nan, "high": np.nan, "is_part": True},
    ]
).assign(unit="share", margin=0.01, verdict="supported")


def probed():
    frame = histories().assign(learning_rate=0.1, probe_trace_clean=np.nan)
    for name in ("top_eigenvalue", "sharpness"):
        for loss in ("observed", "clean"):
            frame[f"probe_{name}_{loss}"] = frame["epoch"].where(frame["epoch"] != 2).astype(float)
    return frame


def looks_at_trainings():
    """Two runs in each of two series, whose losses fall and once are not positive."""
    return pd.DataFrame(
        [
            {"series": series, "noise_rate": rate, "seed": 0, "loss": loss, "value": 10 / (loss + 0.1) + rate}
            for series in ("labels that stay", "redrawn")
            for rate in (0.0, 0.4)
            for loss in (2.3, 1.1, 0.4, 0.0)
        ]
    )


FIGURES = {
    "alignment": lambda **how: figures.alignment(histories(), "NCSAM", **how),
    "contours": lambda **how: figures.contours(
        [(f"model {i}", plane(1 + i)) for i in range(3)], loss_name="loss", about="Seed 0.", **how
    ),
    "curvature": lambda **how: figures.curvature(runs(), **how),
    "forest": lambda **how: figures.forest(EFFECTS, **how),
    "lines": lambda **how: figures.lines(
        [(name, [("SGD", profile())]) for name in ("observed", "clean", "test")], about="Seed 0.", **how
    ),
    "noise rate": lambda **how: figures.against_noise_rate(
        runs().assign(series=runs()["method"]), [figures.Panel("trace_clean", "trace")], about="digits", **how
    ),
    "relief": lambda **how: figures.relief([("SGD", plane())], loss_name="loss", about="", **how),
    "shaded relief": lambda **how: figures.shaded_relief(
        [("SGD", "accuracy 70%", plane()), ("SAM", "", plane())], loss_name="loss", **how
    ),
    "sharpness accuracy": lambda **how: figures.sharpness_accuracy(runs(), **how),
    "sharpness over epochs": lambda **how: figures.sharpness_over_epochs(probed(), 0.4, **how),
    "spectra": lambda **how: figures.spectra([("SGD", DENSITY)], matrix_name="Hessian", about="", **how),
    "training loss": lambda **how: figures.against_training_loss(
        looks_at_trainings(), "tr $J^T J$", about="digits", **how
    ),
    "training curves": lambda **how: figures.training_curves(histories(), **how),
}


@pytest.mark.parametrize("width", [figures.ONE_COLUMN, figures.TWO_COLUMNS])
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_as_wide_as_asked_and_no_text_is_cut(name, width):
    figure = FIGURES[name](width=width)
    assert figure.get_figwidth() == width
    figure.draw_without_rendering()
    shown = [text for text in figure.findobj(mpl.text.Text) if text.get_text() and text.get_visible()]
    # ticks beyond the axes' limits are not drawn
    ticks = {
        tick for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.get_majorticklabels()
    }
    for text in set(shown) - ticks:
        box = text.get_window_extent()
        assert box.x0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= figure.bbox.height + 1, text


@pytest.mark.parametrize("name", FIGURES)
def test_all_text_has_the_font_and_the_caption_is_left_out_on_request(name):
    style = figures.Style(font="serif", size=7, caption=False)
    figure = FIGURES[name](style=style)
    figure.draw_without_rendering()
    assert figure._supxlabel is None
    for text in figure.findobj(mpl.text.Text):
        # a title left empty and the like is made by Matplotlib
        if text.get_text() and text.get_visible():
            assert text.get_fontfamily() == ["serif"], text
            assert text.get_fontsize() <= 1.2 * 7 + 1e-9, text


def test_a_panel_with_a_number_of_at_most_0_is_not_logarithmic_and_its_lines_are_arithmetic_means():
    with_zero = runs().assign(trace_clean=1.0, series="SGD").iloc[:2].assign(noise_rate=0.4)
    with_zero["trace_clean"] = [0.0, 3.0]
    (ax,) = figures.against_noise_rate(with_zero, [figures.Panel("trace_clean", "trace")], about="").axes
    assert ax.get_yscale() == "linear"
    assert list(ax.lines[0].get_ydata()) == [1.5]


def test_a_training_is_one_line_from_high_to_low_loss():
    figure = figures.against_training_loss(looks_at_trainings(), "value", about="digits")
    (ax,) = figure.axes
    lines = [line for line in ax.lines if len(line.get_xdata())]
    assert len(lines) == 4
    for line in lines:
        np.testing.assert_array_equal(line.get_xdata(), [2.3, 1.1, 0.4])
    assert ax.get_xlim()[0] > ax.get_xlim()[1]
    assert {(line.get_marker(), line.get_linestyle()) for line in lines} == {
        ("o", "-"),
        ("s", "-"),
        ("o", "--"),
        ("s", "--"),
    }


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"loss": 0.0}, "looks: none has a positive loss"),
        ({"series": range(16)}, "looks: has 12 series; at most two can be told apart"),
    ],
)
def test_looks_that_cannot_be_drawn_are_refused(changed, error):
    with pytest.raises(ValueError, match=error):
        figures.against_training_loss(looks_at_trainings().assign(**changed), "value", about="digits")


def test_what_the_user_has_set_in_matplotlib_is_respected():
    with mpl.rc_context({"font.size": 14, "axes.grid": True, "image.cmap": "magma"}):
        figure = FIGURES["contours"]()
        assert figure.axes[0].title.get_fontsize() == pytest.approx(14)
        assert figure.axes[0].collections[0].cmap.name == "magma"
        cycle = mpl.cycler(color=["red", "green"])
        with mpl.rc_context({"axes.prop_cycle": cycle}):
            assert [look["color"] for look in looks("ab").values()] == ["red", "green"]
    assert FIGURES["contours"]().axes[0].title.get_fontsize() == pytest.approx(RC["font.size"])


def test_figures_leave_the_settings_of_matplotlib_as_they_were():
    before = dict(mpl.rcParams)
    for draw in FIGURES.values():
        draw(style=figures.Style(font="serif", size=7))
    assert dict(mpl.rcParams) == before


def test_methods_differ_without_their_color():
    styles = [(look["marker"], look["linestyle"]) for look in looks(map(str, range(64))).values()]
    assert len(set(styles)) == 64
    neighbors = [look["linestyle"] for look in looks(map(str, range(4))).values()]
    assert len(set(neighbors)) == 4


@pytest.mark.parametrize("places", [[0.5], [0.1, 0.9], [0.5, 0.5, 0.5], [0.0, 0.05, 0.9, 0.91]])
def test_names_that_would_overlap_are_spread_out_in_their_order(places):
    spread = spread_out(places, 0.1)
    assert all(b - a >= 0.1 - 1e-12 for a, b in itertools.pairwise(spread))
    assert np.mean(spread) == pytest.approx(np.mean(places))
    if len(places) < 3:
        assert spread == places


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.3, 12.0, [0.5, 1, 2, 5, 10]),
        (0.9, 4.5, [1, 1.5, 2, 2.5, 3, 4]),
        (1e-6, 2.0, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]),
        (1e-20, 1e3, [1e-19, 1e-16, 1e-13, 1e-10, 1e-7, 1e-4, 0.1, 100]),
        (-1.0, 1.0, [-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75]),
        (2.0, 2.4, [2.05, 2.1, 2.15, 2.2, 2.25, 2.3, 2.35]),
        (-1.0, 1e6, [2e5, 4e5, 6e5, 8e5]),
    ],
)
def test_contour_lines_are_at_round_losses(low, high, found):
    losses = round_losses(low, high)
    assert 5 <= len(losses) <= 9
    assert {float(f"{loss:.9g}") for loss in losses} >= set(found)


@pytest.mark.parametrize(("points", "smooth"), [(5, False), (6, False), (9, True), (10, True), (21, True)])
def test_a_spline_is_drawn_only_where_the_points_tell_it_and_the_caption_says_what_is_drawn(points, smooth):
    def valley(count):
        axis = np.linspace(-1, 1, count)
        loss = 0.3 + (axis[:, None] - 0.1) ** 2 + axis[None, :] ** 2
        return Surface(axis, axis, loss, np.full_like(loss, 0.5), 0.31, 0.5, np.ones(2), 0.0, 10)

    measured = valley(points)
    low, high = float(measured.loss.min()), float(measured.loss.max())
    assert is_smooth(measured, low, high) == smooth
    caption = figures.contours([("", measured)], loss_name="loss", about="")._supxlabel.get_text()
    between = "a cubic spline between them" if smooth else "linear between them"
    assert f"Grid: {points} × {points} points, {between}." in caption.replace("\n", " ")
    _, _, height = finer(measured, low, high)
    error = np.abs(height - np.log10(valley(4 * (points - 1) + 1).loss.clip(low, high))).max()
    assert error < (0.02 if smooth else 0.3) * np.ptp(height)


def test_a_kinked_surface_is_drawn_linear_between_its_points():
    axis = np.linspace(-1, 1, 21)
    loss = 1.0 + (np.abs(axis[:, None] - 0.05) < 0.06) + 0 * axis[None, :]
    kinked = Surface(axis, axis, loss, np.full_like(loss, 0.5), 1.0, 0.5, np.ones(2), 0.0, 10)
    assert not is_smooth(kinked, 1.0, 2.0)


def test_the_drawn_surface_passes_the_measured_points_and_stays_between_them():
    surface = plane()
    alpha, beta, height = finer(surface, 0.1, 3.1)
    assert (alpha[::4], beta[::4]) == (pytest.approx(surface.alpha), pytest.approx(surface.beta))
    assert height[::4, ::4] == pytest.approx(np.log10(surface.loss))
    assert height.min() >= np.log10(0.1) - 1e-12
    assert finer(plane(hole=True), 0.1, 3.1)[2].shape == (5, 5)


@pytest.mark.parametrize("size", [0, -1, 1000])
def test_a_size_or_width_that_holds_no_text_is_refused(size):
    with pytest.raises(ValueError, match="^size: must be between"):
        figures.Style(size=size)
    with pytest.raises(ValueError, match="^width: must be between"):
        figures.curvature(runs(), width=size)


def test_forest_plots_have_the_numbers_at_the_right():
    drawn = texts(figures.forest(EFFECTS))
    assert "+0.1 [+0.05, +0.15]" in drawn
    assert "20%: +0.2" in drawn


def test_densities_have_a_tick_for_each_outlier_and_one_scale():
    density = spectrum([5, -3], [[-1, 1], [-1, 1]], [[0.25, 0.75], [0.25, 0.75]])
    positive = np.abs(density.density) + 0.1
    object.__setattr__(density, "density", positive)
    object.__setattr__(density, "density_error", np.full(5, 0.01))
    figure = figures.spectral_densities([("SGD", density), ("SAM", density)], matrix_name="Hessian", about="")
    first, second = figure.axes
    ticks = first.collections[-1].get_segments()
    assert [segment[0][0] for segment in ticks] == [5, -3]
    assert first.get_ylim() == second.get_ylim()
    assert first.get_yscale() == "log"
    assert any("largest 5, 2 outliers" in text for text in texts(figure))
    broken = spectrum([], np.full((2, 2), np.nan), np.full((2, 2), np.nan))
    object.__setattr__(broken, "density", np.full(5, np.nan))
    with pytest.raises(ValueError, match="^densities: none is finite"):
        figures.spectral_densities([("SGD", broken)], matrix_name="Hessian", about="")


def test_sharpness_over_epochs_has_a_row_for_what_was_measured_and_the_bound_of_stability():
    figure = figures.sharpness_over_epochs(probed(), 0.4)
    panels = [ax for ax in figure.axes if ax.lines]
    # no trace was measured
    assert len(panels) == 4
    drawn = {line.get_label(): line.get_xydata() for line in panels[0].lines}
    assert drawn["SGD"].tolist() == [[1, 1], [3, 3]]
    assert drawn["edge of stability"][:, 1].tolist() == [20, 20, 20]
    assert "3 seeds" in caption_of(figure)
    # claim E6 compares with the same edge
    heavy = figures.sharpness_over_epochs(probed(), 0.4, momentum=0.9, weight_decay=0.5)
    (edge,) = [line for line in heavy.axes[0].lines if line.get_label() == "edge of stability"]
    assert edge.get_ydata() == pytest.approx([descent_edge(0.1, 0.9, 0.5)] * 3)
    assert "2 (1 + 0.9) / learning rate - 0.5, gradient descent" in caption_of(heavy)
    without = figures.sharpness_over_epochs(probed(), 0.4, momentum=None)
    assert "edge of stability" not in {line.get_label() for line in without.axes[0].lines}
    with pytest.raises(ValueError, match=r"^histories: no probe at noise rate 0\.7"):
        figures.sharpness_over_epochs(probed(), 0.7)
