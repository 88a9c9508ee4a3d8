"""Surfaces say what they show, and are drawn with holes as holes."""

import dataclasses
import re
import sys

import numpy as np
import pytest
from matplotlib.colors import LightSource

import figures
from landscape import Surface, Trajectory
from tests.figures.samples import FIGURES, plane


def shades(ax):
    """(smallest, largest) loss of the shades of a panel, whose heights are logarithms."""
    norm = ax.collections[0].norm
    return 10**norm.vmin, 10**norm.vmax


def test_surfaces_side_by_side_share_one_color_scale():
    figure = FIGURES["contours"]()
    for ax in figure.axes[:2]:
        assert shades(ax) == pytest.approx((0.1, 9.3))


@pytest.mark.parametrize(
    ("width", "panels", "rows", "across"),
    [(6.9, 1, 1, 1), (6.9, 5, 2, 3), (6.9, 7, 2, 4), (6.9, 10, 3, 4), (3.3, 5, 3, 2), (2.0, 3, 3, 1)],
)
@pytest.mark.parametrize("draw", [figures.contours, figures.relief])
def test_many_models_go_into_as_many_rows_as_the_width_takes(draw, width, panels, rows, across):
    models = [(f"model {i}", plane()) for i in range(panels)]
    figure = draw(models, loss_name="loss", about="Seed 0.", width=width)
    assert figure.get_figwidth() == width
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


def numbers_on(ax):
    """The losses of a panel's lines."""
    return [float(text.get_text()) for text in ax.texts]


def test_each_panel_has_lines_and_the_bar_names_all_its_ticks_and_its_scale():
    flat = dataclasses.replace(plane(), loss=2.0 + 0.01 * plane().loss)
    figure = figures.contours([("SGD", plane()), ("SAM", flat)], loss_name="loss", about="")
    figure.draw_without_rendering()
    first, second, bar = figure.axes
    assert 4 <= len(set(numbers_on(first))) <= 9
    assert 4 <= len(set(numbers_on(second))) <= 9
    assert min(numbers_on(second)) > 2
    assert "other losses in other panels" in figure._supxlabel.get_text().replace("\n", " ")
    assert bar.get_ylabel() == "loss (nat), logarithmic"
    ticks = [*bar.get_yticks(), *bar.get_yticks(minor=True)]
    named = [text.get_text() for text in bar.get_yticklabels()]
    assert 5 <= len(ticks) == len(named)
    assert all(named)


@pytest.mark.parametrize(("panels", "said"), [(1, "filter-normalized)."), (2, "the same draw for all).")])
def test_a_single_surface_is_not_called_the_same_draw_for_all(panels, said):
    shown = dataclasses.replace(plane(), direction_kind="filter-normalized")
    figure = figures.contours([(str(i), shown) for i in range(panels)], loss_name="loss", about="")
    assert figure._supxlabel.get_text().replace("\n", " ").endswith(said)


def test_the_share_of_labels_that_a_model_predicts_is_not_called_accuracy():
    for figure in (FIGURES["contours"](), FIGURES["lines"]()):
        words = [figure._supxlabel.get_text(), *(ax.get_title() + ax.get_ylabel() for ax in figure.axes)]
        assert "accuracy" not in " ".join(words)
        assert "as labeled" in " ".join(words)


def test_one_outlier_does_not_flatten_the_basin_and_is_counted():
    figure = figures.contours([("SGD", outlying(1e8))], loss_name="loss", about="Seed 0.")
    assert shades(figure.axes[0])[1] < 100
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


def test_a_surface_without_any_finite_loss_is_refused():
    empty = plane()
    broken = Surface(**{**vars(empty), "loss": np.full((5, 5), np.nan)})
    with pytest.raises(ValueError, match="^surfaces"):
        figures.contours([("SGD", broken)], loss_name="loss", about="")


def test_the_ticks_of_a_flat_relief_differ():
    surface = plane()
    surface.loss[:] = 2.3 + 0.001 * surface.loss
    figure = figures.relief([("SGD", surface)], loss_name="loss", about="")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    shown = [ax.zaxis.get_major_formatter()(tick, 0) for tick in ax.get_zticks()]
    assert len(set(shown)) == len(shown)


def test_a_hole_of_the_relief_has_no_color_of_its_own():
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
    assert ax.get_title() == "SGD\ncenter 0.0012"


def test_a_path_of_no_surface_and_lines_of_no_model_are_refused():
    walk = Trajectory(np.zeros((2, 2)), np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="^trajectories: no surface has the title 'SAM'; known: SGD"):
        figures.contours([("SGD", plane())], loss_name="loss", about="", trajectories={"SAM": walk})
    with pytest.raises(ValueError, match="^series: holds no line"):
        figures.lines([("train", [])], about="")


def test_the_interactive_page_shows_a_title_as_it_is():
    """plotly would take <b> for bold."""
    page = figures.interactive([("<b>SGD", plane()), ("SAM", plane(3))], loss_name="loss", about="")
    plot = page[page.rindex("Plotly.newPlot") :]
    assert plot.count("&lt;b&gt;SGD") >= 2
    assert r"\u003cb\u003eSGD" not in plot


def test_a_shaded_relief_has_each_title_and_its_numbers_and_one_scale(tmp_path):
    panels = [("SGD", "accuracy 70%", plane()), ("SAM", "accuracy 80%", plane(scale=0.5))]
    figure = figures.shaded_relief(panels, loss_name="training loss", about="digits.")
    assert {text.get_text() for text in figure.texts} >= {"SGD", "accuracy 70%", "SAM", "accuracy 80%"}
    first, second = figure.axes
    assert first.get_zlim() == second.get_zlim()
    assert "training loss (nat), logarithmic" in figure._supxlabel.get_text()
    figure.savefig(tmp_path / "relief.svg")
    # the facets are one picture in a vector file
    assert (tmp_path / "relief.svg").stat().st_size < 600_000


def light_on(monkeypatch, extent, points):
    """The brightness of a relief whose height is a quadratic, at the places of its coarsest mesh."""
    shades, shade = [], LightSource.hillshade
    monkeypatch.setattr(LightSource, "hillshade", lambda *a, **k: shades.append(shade(*a, **k)) or shades[-1])
    alpha, beta = np.linspace(-1, 1, 9), np.linspace(-1, 1, points)
    loss = 10 ** (alpha[:, None] ** 2 + beta - beta**2)
    surface = Surface(alpha, extent * beta, loss, np.full(loss.shape, 0.5), 1.0, 0.5, np.ones(2), 0.0, 10)
    figures.shaded_relief([("SGD", "", surface)], loss_name="loss")
    rows, columns = ((count - 1) // 8 for count in shades[0].shape)
    # gradients at the border are one-sided
    return shades[0][::rows, ::columns][1:-1, 1:-1]


def test_the_light_on_a_relief_is_that_of_its_box_whatever_the_extents_and_points(monkeypatch):
    right = light_on(monkeypatch, 1.0, 9)
    for extent, points in [(0.01, 9), (1.0, 17), (0.01, 17)]:
        np.testing.assert_allclose(light_on(monkeypatch, extent, points), right, atol=0.02)


def test_a_shaded_relief_of_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="without a finite loss"):
        figures.shaded_relief([("SGD", "", plane(hole=True))], loss_name="loss")
    with pytest.raises(ValueError, match="holds no surface"):
        figures.shaded_relief([], loss_name="loss")


def test_a_shaded_relief_takes_losses_of_zero_and_below(tmp_path):
    surface = plane()
    surface.loss[:] -= 2.0
    figures.shaded_relief([("MSE", "", surface)], loss_name="loss").savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("draw", [figures.contours, figures.relief], ids=["contours", "relief"])
def test_losses_too_small_for_a_scale_are_drawn_as_zero(draw):
    tiny = dataclasses.replace(plane(), loss=plane().loss * 1e-300)
    draw([("tiny", tiny)], loss_name="loss", about="").canvas.draw()
