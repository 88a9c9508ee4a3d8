"""`result.plot()` draws every result that has a figure, and a notebook shows it."""

import dataclasses
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest

import figures
from figures.of_results import draw
from figures.topology import _in_order as basins_in_order
from landscape import (
    GroupCurvature,
    LayerTraces,
    MatrixDiagonal,
    Path,
    SampleCurvature,
    SamplingError,
    TopEigenvalues,
    TraceEstimate,
    Track,
    Trajectory,
    topology,
    topology_draws,
)
from landscape.results.registry import RESULT_CLASSES
from landscape.results.shown import DrawnResult
from tests.figures.samples import caption_of, plane, profile, texts
from tests.figures.test_figures import spectrum

TWO = np.array([3.0, 1.0])
ERRORS = np.array([0.1, 0.2])
NAMES = np.array(["1.weight", "1.bias"])
METRICS = np.array(["loss", "top_eigenvalue", "top_eigenvalue_converged", "trace", "trace_low", "trace_high"])


WAVES = dataclasses.replace(plane(), loss=np.random.default_rng(0).normal(size=(5, 5)))


def track():
    values = np.ones((4, 2, 6)) * np.arange(1, 5)[:, None, None]
    values[2, 0, 2] = 0
    values[2, 1] = np.nan
    unit = np.array(["nat", *[""] * 5])
    return Track(
        np.arange(4) * 10, np.arange(4), np.array(["observed", "clean"]), METRICS, values,
        np.ones((4, 6), bool), unit, METRICS, np.arange(4.0), np.arange(4.0) / 10,
    )  # fmt: skip


RESULTS = {
    "Surface": plane(),
    "Line": profile(),
    "Path": Path(
        np.linspace(0, 1, 5), np.arange(5.0), np.full(5, 0.5), 1.0, 0.5, "straight", 2.0, 2.0, "eval", 0, 10
    ),
    "SpectralDensity": spectrum([5, -3], [[-1, 1], [-1, 1]], [[0.25, 0.75], [0.25, 0.75]]),
    "Trajectory": Trajectory(
        np.arange(8.0).reshape(4, 2), np.array([0.1, 0.2, 0.3, 0]), np.array([0.75, 0.2]), np.arange(1, 5) / 2
    ),
    "Track": track(),
    "TopEigenvalues": TopEigenvalues(
        TWO, ERRORS, ERRORS, np.array([True, False]), None, 12, "largest", 0.1, "hessian", "own", 10
    ),
    "Topology": topology(WAVES),
    "TopologyDraws": topology_draws([WAVES, plane()]),
    "LayerTraces": LayerTraces(NAMES, TWO, ERRORS, np.array([6, 2]), True, 12, "hessian", 10),
    "SamplingError": SamplingError(NAMES, TWO, ERRORS, 0 * ERRORS, TWO - 1, TWO + 1, 32, 10, 0.0, 2),
    "SampleCurvature": SampleCurvature(np.array([1.0, 2, np.nan]), 2, 2, 3, gradient_norm=np.arange(3.0)),
    "GroupCurvature": GroupCurvature(
        np.array(["0", "1"]), np.array(["loss"]), TWO[:, None], 0 * TWO[:, None], ERRORS[:, None],
        np.full((2, 1), 5), np.full(2, 5),
    ),
    "MatrixDiagonal": MatrixDiagonal(TWO, ERRORS, NAMES, np.array([1, 1]), True, 12, "hessian", 10),
}  # fmt: skip


def test_every_result_with_a_figure_is_drawn_here():
    drawn = {name for name, cls in RESULT_CLASSES.items() if issubclass(cls, DrawnResult)}
    assert drawn == set(RESULTS)


@pytest.mark.parametrize("width", [figures.ONE_COLUMN, figures.TWO_COLUMNS])
@pytest.mark.parametrize("name", RESULTS)
def test_a_result_draws_itself_and_no_text_is_cut(name, width):
    figure = RESULTS[name].plot(width=width, style=figures.Style(size=8))
    assert figure.get_figwidth() == width
    figure.draw_without_rendering()
    ticks = {
        tick for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.get_majorticklabels()
    }
    for text in set(figure.findobj(mpl.text.Text)) - ticks:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert box.x0 >= -1, text
            assert box.x1 <= figure.bbox.width + 1, text
            assert box.y1 <= figure.bbox.height + 1, text


@pytest.mark.parametrize("name", ["Surface", "TopEigenvalues"])
def test_a_notebook_shows_the_figure_as_the_last_line_of_a_cell(name):
    assert RESULTS[name].plot()._repr_png_().startswith(b"\x89PNG")


def test_a_result_without_a_figure_has_no_plot_and_drawing_it_names_its_class():
    estimate = TraceEstimate(1.5, 0.1, 1.3, 1.7, 4.0, 0.2, False, 30, "hessian", "xtrace", 10)
    assert not hasattr(estimate, "plot")
    with pytest.raises(TypeError, match=r"^plot: nothing draws a TraceEstimate"):
        draw(estimate)


def test_what_did_not_converge_is_said_in_the_figure():
    assert "2 (not converged)" in texts(RESULTS["TopEigenvalues"].plot())
    assert "Open rings: 1 numbers that did not converge" in caption_of(track().plot())


def test_a_tree_may_be_as_deep_as_there_are_basins():
    count = 3000
    deep = SimpleNamespace(parent=np.arange(-1, count - 1), saddle_loss=np.linspace(1, 0, count))
    assert basins_in_order(deep) == list(range(count))
    # of two basins that end in one, the one that ends first is nearest
    wide = SimpleNamespace(parent=np.array([-1, 0, 0, 1]), saddle_loss=np.array([np.nan, 2.0, 1.0, 0.5]))
    assert basins_in_order(wide) == [0, 2, 1, 3]


def test_basins_are_drawn_on_their_surface_where_it_is_given_with_diagram_and_tree():
    basins = RESULTS["Topology"]
    assert len(basins.plot().axes) == 2
    figure = basins.plot(surface=WAVES)
    on_surface, diagram, tree = figure.axes
    assert on_surface.get_xlabel() == "α"
    assert diagram.get_ylabel() == "saddle (nat)"
    # in the tree each basin is one upright line, and each that merges one level line
    merging = int((basins.parent >= 0).sum())
    assert len([line for line in tree.lines if len(line.get_xdata()) == 2]) == len(basins.loss) + merging
    assert f"{len(basins.loss)} basins" in caption_of(figure)


def test_samples_without_a_number_are_counted():
    assert "1 numbers that are not finite are left out" in caption_of(RESULTS["SampleCurvature"].plot())


def test_the_figure_of_a_trajectory_says_how_far_it_was_from_the_plane():
    assert "training 0.3 (15% of its largest distance from the model)" in caption_of(
        RESULTS["Trajectory"].plot()
    )
    assert any("75% of the variance" in text for text in texts(RESULTS["Trajectory"].plot()))
