"""Basins, saddles and persistence on surfaces whose topology is known."""

import dataclasses
import sys

import numpy as np
import pytest

from landscape import Surface, load, save, topology, topology_draws


def surface_of(function, extent=1.0, steps=41, **fields):
    """The surface of a function of (alpha, beta)."""
    axis = np.linspace(-extent, extent, steps)
    loss = np.asarray(function(*np.meshgrid(axis, axis, indexing="ij")), dtype=float)
    return Surface(axis, axis, loss, np.full_like(loss, np.nan), 0.0, 0.5, np.ones(2), 0.0, 10, **fields)


def noise(seed, steps):
    flat = surface_of(lambda a, b: 0 * a * b, steps=steps)
    return dataclasses.replace(flat, loss=np.random.default_rng(seed).normal(size=flat.loss.shape))


def two_wells(a, b):
    """Minima at (-1, 0) and (1, 0), the second deeper by about 0.4, and a saddle between them near (0, 0)."""
    return (a**2 - 1) ** 2 + b**2 - 0.2 * a


def egg_box(a, b):
    return np.cos(a) + np.cos(b)


def monkey_saddle(a, b):
    return a**3 - 3 * a * b**2


def test_a_quadratic_has_one_basin_and_no_roughness():
    found = topology(surface_of(lambda a, b: 3 + a**2 + 2 * (b - 0.5) ** 2))
    assert (found.alpha[0], found.beta[0], found.loss[0]) == pytest.approx((0, 0.5, 3))
    assert len(found.loss) == 1
    assert np.isinf(found.persistence[0])
    assert found.parent[0] == -1
    assert not found.at_border[0]
    assert found.roughness == found.total_persistence == 0


def test_two_wells_merge_at_the_saddle_between_them():
    found = topology(surface_of(two_wells, extent=1.5, steps=61))
    assert len(found.loss) == 2
    assert found.alpha == pytest.approx([1.0, -1.0], abs=0.06)
    assert found.parent.tolist() == [-1, 0]
    # the roots of 4 a (a^2 - 1) = 0.2 are the wells and the saddle
    wells = sorted(np.roots([4, 0, -4, -0.2]).real)
    depth = two_wells(wells[1], 0.0) - two_wells(wells[0], 0.0)
    assert found.persistence[1] == pytest.approx(depth, abs=0.01)
    assert found.saddle_alpha[1] == pytest.approx(wells[1], abs=0.06)
    assert found.total_persistence == found.persistence[1]
    assert not found.at_border.any()


def test_an_egg_box_has_a_basin_for_each_hollow_of_one_depth():
    found = topology(surface_of(egg_box, extent=2 * np.pi, steps=41))
    # hollows at odd multiples of pi: 2 x 2 inside; merging over saddles at 0
    inside = ~found.at_border
    assert inside.sum() == 4
    assert found.loss[inside] == pytest.approx(-2)
    merged = np.isfinite(found.persistence) & inside
    assert merged.sum() == 3
    assert found.persistence[merged] == pytest.approx(2)
    assert np.isinf(found.persistence).sum() == 1


def test_the_three_valleys_of_a_monkey_saddle_lead_out_of_the_grid_and_meet_at_its_middle():
    found = topology(surface_of(monkey_saddle, steps=41))
    assert len(found.loss) == 3
    assert found.at_border.all()
    assert found.saddle_loss[1:] == pytest.approx([0, 0], abs=1e-3)
    assert found.parent.tolist() == [-1, 0, 0]


def test_a_chain_of_wells_is_a_tree_whose_branches_end_in_the_nearest_deeper_one():
    """Wells of depth 1, 3, 2 in a row, between walls of height 1 and 2."""
    row = np.array([9.0, -1, 1, -3, 2, -2, 9])
    found = topology(_grid(row))
    assert found.loss == pytest.approx([-3, -2, -1])
    assert found.saddle_loss[1:] == pytest.approx([2, 1])
    assert found.persistence[1:] == pytest.approx([4, 2])
    assert found.parent.tolist() == [-1, 0, 0]


def _grid(row):
    loss = np.stack([row + 20, row, row + 20])
    alpha, beta = np.arange(3.0), np.arange(float(len(row)))
    return Surface(alpha, beta, loss, np.full_like(loss, np.nan), 0.0, 0.5, np.ones(2), 0.0, 10)


def test_a_shift_changes_nothing_and_a_rising_transformation_keeps_minima_saddles_and_the_tree():
    rough = noise(0, 15)
    found = topology(rough)
    assert len(found.loss) > 10
    shifted = topology(dataclasses.replace(rough, loss=rough.loss + 7))
    assert shifted.persistence == pytest.approx(found.persistence)
    for other in (shifted, topology(dataclasses.replace(rough, loss=np.exp(rough.loss)))):
        for name in ("alpha", "beta", "saddle_alpha", "saddle_beta", "parent", "at_border"):
            assert np.array_equal(
                getattr(other, name), getattr(found, name), equal_nan=name.startswith("saddle")
            )


def test_the_other_axis_order_gives_the_mirrored_basins():
    rough = noise(1, 15)
    found, mirrored = topology(rough), topology(dataclasses.replace(rough, loss=rough.loss.T.copy()))
    assert np.array_equal(found.alpha, mirrored.beta)
    assert np.array_equal(found.saddle_alpha, mirrored.saddle_beta, equal_nan=True)
    assert found.parent.tolist() == mirrored.parent.tolist()


def test_every_basin_holds_as_exhaustive_flooding_of_the_grid_says():
    """Basins by raising the level point by point, and joining neighbors: the textbook's elder rule."""
    rough = noise(2, 9)
    height, pairs = rough.loss, {}
    root = {}

    def top(point):
        while root[point] != point:
            point = root[point]
        return point

    for point in sorted(np.ndindex(height.shape), key=lambda at: height[at]):
        root[point] = point
        for step in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            beside = (point[0] + step[0], point[1] + step[1])
            if beside in root and top(beside) != top(point):
                younger, elder = sorted((top(beside), top(point)), key=lambda at: -height[at])
                if younger != point:
                    pairs[younger] = (height[point], elder)
                root[younger] = elder
    found = topology(rough)
    known = {(each[0], each[1]): value for each, value in pairs.items()}
    axis = rough.alpha
    assert len(found.loss) == len(known) + 1
    for basin in range(1, len(found.loss)):
        at = (int(np.abs(axis - found.alpha[basin]).argmin()), int(np.abs(axis - found.beta[basin]).argmin()))
        assert found.saddle_loss[basin] == known[at][0]
        elder = found.parent[basin]
        assert (axis[known[at][1][0]], axis[known[at][1][1]]) == (found.alpha[elder], found.beta[elder])


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_points_without_a_loss_are_no_basin_and_no_way_and_are_counted(hole):
    wells = surface_of(two_wells, extent=1.5, steps=31)
    loss = wells.loss.copy()
    loss[wells.alpha == 0] = hole
    found = topology(dataclasses.replace(wells, loss=loss))
    # a wall between the wells: they never merge
    assert found.left_out == 31
    assert len(found.loss) == 2
    assert np.isinf(found.persistence).all()
    assert np.isfinite(found.loss).all()
    assert found.total_persistence == 0


def test_a_minimum_beside_a_hole_is_at_the_border():
    bowl = surface_of(lambda a, b: a**2 + b**2, steps=11)
    loss = bowl.loss.copy()
    loss[5, 5] = np.nan
    found = topology(dataclasses.replace(bowl, loss=loss))
    assert found.at_border[0]
    assert found.left_out == 1


def test_a_plateau_is_one_basin_and_ties_are_no_further_ones():
    assert len(topology(surface_of(lambda a, b: 0 * a * b, steps=5)).loss) == 1
    flat_bottom = topology(surface_of(lambda a, b: np.maximum(a**2 + b**2, 0.3), steps=21))
    assert len(flat_bottom.loss) == 1
    twins = topology(surface_of(lambda a, b: (a**2 - 1) ** 2 + b**2, extent=1.5, steps=31))
    assert twins.loss == pytest.approx([0, 0])
    assert twins.persistence[1] == pytest.approx(1)


def test_basins_that_are_shallower_than_asked_are_left_out_and_errors_say_which_may_be_noise():
    wells = surface_of(two_wells, extent=1.5, steps=31)
    assert len(topology(wells, least=1.0).loss) == 1
    assert np.isnan(topology(wells).persistence_error).all()
    errors = np.full_like(wells.loss, 0.1)
    found = topology(dataclasses.replace(wells, rise_error=errors, loss_interpolation_error=errors))
    # two standard errors and the interpolation's, at the minimum and at the saddle
    assert found.persistence_error[1] == pytest.approx(0.6)


def test_over_draws_means_have_the_interval_of_their_spread():
    draws = [noise(seed, 7) for seed in range(4)]
    found = topology_draws(draws)
    counts = [len(topology(each).loss) for each in draws]
    assert found.values[:, 0].tolist() == counts
    assert found.mean[0] == np.mean(counts)
    half = 3.182446 * np.std(counts, ddof=1) / 2
    assert found.high[0] - found.mean[0] == pytest.approx(half)
    assert found.mean[0] - found.low[0] == pytest.approx(half)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: topology(surface_of(lambda a, b: a * b * np.nan, steps=3)),
            "surface: no point has a finite loss",
        ),
        (lambda: topology(surface_of(two_wells), least=-1), "least: must be at least 0"),
        (lambda: topology_draws([surface_of(two_wells)]), "surfaces: must be at least 2"),
    ],
)
def test_what_has_no_topology_is_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_without_gudhi_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gudhi", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ncsam\[topology\]'"):
        topology(surface_of(two_wells))


def test_results_are_saved_and_loaded_losslessly(tmp_path):
    found = topology(surface_of(two_wells, extent=1.5))
    draws = topology_draws([surface_of(two_wells), surface_of(egg_box)])
    for name, each in (("one", found), ("draws", draws)):
        save(tmp_path / "file.h5", name, each)
        loaded = load(tmp_path / "file.h5", name)
        for field in dataclasses.fields(each):
            before, after = getattr(each, field.name), getattr(loaded, field.name)
            assert np.array_equal(before, after, equal_nan=np.asarray(before).dtype.kind == "f")
