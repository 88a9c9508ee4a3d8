"""The surface along a training: GIF, MP4, a page with a slider, and files of ParaView."""

import dataclasses
import json
import re
import sys

import matplotlib as mpl
import numpy as np
import pytest
import pyvista
from PIL import Image

import figures
from figures import animation
from landscape import Trajectory
from tests.figures.samples import caption_of, plane, texts

FRAMES = [(f"epoch {number}", plane(3 - number)) for number in range(3)]
PATH = Trajectory(np.array([[1.0, 0.5], [0.5, 0.2], [0, 0]]), np.array([0.3, 0.1, 0]), np.array([0.9, 0.1]))
HOW = {"loss_name": "training loss", "about": "Digits.", "width": 2.2}


@pytest.fixture(scope="module")
def moving():
    return figures.Animation(FRAMES, **HOW)


@pytest.fixture(scope="module")
def gif(moving, tmp_path_factory):
    return moving.save(tmp_path_factory.mktemp("gif") / "training.gif", seconds_per_frame=0.2)


def test_a_gif_has_a_picture_for_each_moment_and_lasts_as_long_as_asked(gif):
    with Image.open(gif) as held:
        assert held.n_frames == 3
        pictures = []
        for index in range(3):
            held.seek(index)
            assert held.info["duration"] == 200
            pictures.append(np.asarray(held.convert("L"), dtype=float))
    assert np.abs(pictures[0] - pictures[1]).max() > 50
    assert [path.name for path in gif.parent.iterdir()] == ["training.gif"]


def test_all_moments_are_on_one_scale(moving):
    mappables = [moving.frame(index).axes[1] for index in range(3)]
    assert len({ax.get_ylim() for ax in mappables}) == 1
    assert "epoch 1" in " ".join(texts(moving.frame(1)))


@pytest.mark.parametrize("width", [figures.ONE_COLUMN, figures.TWO_COLUMNS])
def test_a_frame_is_as_wide_as_asked_and_no_text_is_cut(width):
    figure = figures.Animation(FRAMES, **{**HOW, "width": width}, trajectory=PATH).frame(1)
    assert figure.get_figwidth() == width
    figure.draw_without_rendering()
    for text in (figure.axes[0].title, figure._supxlabel, figure.axes[1].yaxis.label):
        box = text.get_window_extent()
        assert box.x0 >= -1
        assert box.x1 <= figure.bbox.width + 1
        assert box.y1 <= figure.bbox.height + 1


def test_with_a_trajectory_each_frame_shows_the_path_so_far():
    moving = figures.Animation(FRAMES, **HOW, trajectory=PATH)
    for index in range(3):
        path = next(line for line in moving.frame(index).axes[0].lines if line.get_marker() == "o")
        assert np.array_equal(path.get_xydata(), PATH.coordinates[: index + 1])


def test_points_without_a_loss_are_told_in_every_frame():
    moving = figures.Animation([*FRAMES, ("epoch 3", plane(hole=True))], **HOW)
    assert "2 points without a finite loss are left out" in caption_of(moving.frame(0))


def test_an_mp4_needs_ffmpeg_and_is_refused_with_the_remedy_without_it(moving, tmp_path, monkeypatch):
    target = moving.save(tmp_path / "training.mp4")
    assert target.read_bytes()[4:8] == b"ftyp"
    monkeypatch.setattr(animation.importlib.util, "find_spec", lambda _: None)
    missing = {"animation.ffmpeg_path": "no-such-program"}
    remedy = pytest.raises(ValueError, match=r"needs ffmpeg.*name a \.gif, or pip install imageio-ffmpeg")
    with mpl.rc_context(missing), remedy:
        moving.save(tmp_path / "again.mp4")
    assert not (tmp_path / "again.mp4").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: figures.Animation(FRAMES[:2], **HOW, trajectory=PATH), "^trajectory: must have a checkpoint"),
        (lambda: figures.Animation([], **HOW), "^surfaces: there is none"),
        (lambda: figures.Animation(FRAMES, **HOW).save("training.avi"), r"^path: must end in \.gif or \.mp4"),
        (lambda: figures.Animation(FRAMES, **HOW).save("a.gif", seconds_per_frame=0), "^seconds_per_frame"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change()


def test_a_notebook_shows_the_animation(moving):
    assert moving._repr_html_().startswith('<img alt="animation" src="data:image/gif;base64,R0lG')


def test_a_page_has_a_slider_with_a_step_for_each_moment_and_none_for_all():
    page = figures.interactive(FRAMES, loss_name="loss", about="Digits.", slider=True)
    assert re.findall(r'"label":"(epoch \d|all)"', page) == ["epoch 0", "epoch 1", "epoch 2"]
    assert '"sliders"' in page
    assert "Red: the model at that moment." in page


def test_a_page_fits_a_telephone_and_the_names_below_the_slider_are_not_cut():
    page = figures.interactive(FRAMES, loss_name="loss", about="Digits.", slider=True)
    # a plot that is higher than wide would cut the box at both sides
    assert "height:min(82vh, 100vw)" in page
    (padding,) = re.findall(r'"pad":(\{[^}]*\})', page[page.rindex('"sliders"') :])
    assert json.loads(padding) == {"t": 10, "b": 20, "l": 40, "r": 40}


def test_a_surface_is_read_by_paraviews_library_point_by_point(tmp_path):
    surface = dataclasses.replace(plane(), beta=2 * plane().beta)
    grid = pyvista.read(figures.write_surface(surface, tmp_path / "plane.vti"))
    assert grid.dimensions == (5, 5, 1)
    for i, alpha in enumerate(surface.alpha):
        for j, beta in enumerate(surface.beta):
            point = grid.find_closest_point((alpha, beta, 0))
            assert grid.points[point] == pytest.approx([alpha, beta, 0])
            assert grid.point_data["loss"][point] == surface.loss[i, j]


def test_uneven_steps_go_into_another_kind_of_file_and_losses_that_are_not_finite_stay(tmp_path):
    surface = dataclasses.replace(plane(hole=True), alpha=np.array([-1, -0.5, 0, 0.1, 1.0]))
    with pytest.raises(ValueError, match=r"^surface: the steps of alpha are uneven.*name a \.vtr"):
        figures.write_surface(surface, tmp_path / "plane.vti")
    grid = pyvista.read(figures.write_surface(surface, tmp_path / "plane.vtr"))
    assert np.array_equal(grid.x, surface.alpha)
    assert np.array_equal(grid.point_data["loss"], surface.loss.ravel(order="F"), equal_nan=True)


def test_a_trajectory_is_one_line_with_the_distances_from_the_plane(tmp_path):
    line = pyvista.read(figures.write_trajectory(PATH, tmp_path / "path.vtp", height=[3.0, 2, 1]))
    assert line.n_lines == 1
    assert np.array_equal(line.lines, [3, 0, 1, 2])
    assert np.array_equal(line.points[:, :2], PATH.coordinates)
    assert np.array_equal(line.points[:, 2], [3, 2, 1])
    assert np.array_equal(line.point_data["distance_from_plane"], PATH.distances)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: figures.write_surface(plane(), folder / "a.stl"), "path: must end in .vti or .vtr"),
        (lambda folder: figures.write_trajectory(PATH, folder / "a.vti"), "path: must end in .vtp"),
        (
            lambda folder: figures.write_trajectory(PATH, folder / "a.vtp", height=[1.0]),
            "height: must be one",
        ),
    ],
)
def test_what_no_file_can_hold_is_refused(write, message, tmp_path):
    with pytest.raises(ValueError, match=f"^{message}"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_pyvista_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvista", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ncsam\[paraview\]'"):
        figures.write_surface(plane(), tmp_path / "a.vti")
