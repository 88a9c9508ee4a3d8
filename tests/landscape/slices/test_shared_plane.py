"""Several trainings on one plane."""

import numpy as np
import pytest
import torch

from landscape import load, save, shared_plane, trajectory_directions
from tests.landscape.slices.test_planes import quadratic

RIGHT, UP, OUT = torch.eye(4, dtype=torch.float64)[:3]


def trainings(objective, off):
    """Two paths that fork: along one axis, and along another, the second `off` the plane at its end."""
    start = objective.theta
    return {
        "SGD": [start + step * RIGHT for step in (0.0, 1.0, 2.0, 3.0)],
        "SAM": [start + step * UP for step in (0.0, 1.0)] + [start + 2 * UP + off * OUT],
    }


def test_paths_in_a_plane_are_on_it_with_their_distances_from_the_model():
    objective, _, _ = quadratic()
    _, paths = shared_plane(objective, trainings(objective, 0.0))
    assert list(paths) == ["SGD", "SAM"]
    for path in paths.values():
        assert path.distances == pytest.approx(0, abs=1e-12)
        assert path.explained.sum() == pytest.approx(1)
        assert np.linalg.norm(path.coordinates, axis=1) == pytest.approx(path.from_model)
    assert paths["SGD"].from_model == pytest.approx([0, 1, 2, 3])
    # paths at right angles stay so
    assert paths["SGD"].coordinates[-1] @ paths["SAM"].coordinates[-1] == pytest.approx(0, abs=1e-12)


def test_what_lies_off_the_plane_is_told_and_is_the_rest_of_the_distance():
    objective, _, _ = quadratic()
    _, paths = shared_plane(objective, trainings(objective, 0.3))
    path = paths["SAM"]
    assert path.distances[-1] > 0.01
    on_plane = np.linalg.norm(path.coordinates, axis=1)
    assert on_plane**2 + path.distances**2 == pytest.approx(path.from_model**2)
    assert path.explained.sum() < 1


def test_the_plane_is_that_of_all_checkpoints_together():
    objective, _, _ = quadratic()
    held = trainings(objective, 0.3)
    directions, paths = shared_plane(objective, held)
    together, whole = trajectory_directions(objective, [*held["SGD"], *held["SAM"]])
    assert torch.equal(directions.vectors, together.vectors)
    assert np.array_equal(np.concatenate([path.coordinates for path in paths.values()]), whole.coordinates)


def test_no_training_is_refused_and_a_path_is_saved_with_its_distances(tmp_path):
    objective, _, _ = quadratic()
    with pytest.raises(ValueError, match="^trajectories: holds none"):
        shared_plane(objective, {})
    _, paths = shared_plane(objective, trainings(objective, 0.3))
    save(tmp_path / "file.h5", "path", paths["SAM"])
    loaded = load(tmp_path / "file.h5", "path")
    assert np.array_equal(loaded.from_model, paths["SAM"].from_model)
    assert np.array_equal(loaded.distances, paths["SAM"].distances)
