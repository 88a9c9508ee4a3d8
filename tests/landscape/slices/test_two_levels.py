"""A surface from a part of the samples is that of all samples within its tolerance, and says what it cost."""

from dataclasses import fields

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from figures import contours
from landscape import (
    Objective,
    filter_normalized_directions,
    load,
    random_directions,
    save,
    surface,
    surfaces,
    topology,
)
from landscape.curvature.random_part import random_part
from landscape.evaluation.evaluator import Values
from landscape.slices.two_levels import refined_with_part
from ncsam import build_model
from tests.conftest import build
from tests.landscape.slices.test_adaptive import ALPHA, BETA, FUNCTIONS

cross_entropy = nn.CrossEntropyLoss()
OPTIONS = {"adaptive": True, "part": 1 / 8}


def trained(name, count=800, **options):
    """A network that learned noisy images for some steps, and objectives of observed and true labels."""
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(0, 4, (count,), generator=generator)
    centers = torch.randn(4, 1, 8, 8, generator=generator)
    inputs = 0.7 * centers[true] + torch.randn(count, 1, 8, 8, generator=generator)
    observed = torch.where(torch.rand(count, generator=generator) < 0.3, (true + 1) % 4, true)
    model = build_model(name, (1, 8, 8), 4, seed=0, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for start in range(0, count, 80):
        optimizer.zero_grad()
        cross_entropy(model(inputs[start : start + 80]), observed[start : start + 80]).backward()
        optimizer.step()
    model.eval()
    return {
        "observed": Objective(model, cross_entropy, (inputs, observed)),
        "true": Objective(model, cross_entropy, (inputs, true)),
    }


NETWORKS = {
    "MLP": ("mlp", {"hidden": [16], "count": 400}, 21),
    "CNN": ("cnn", {"channels": [4, 4], "count": 240}, 15),
    "ResNet-8": ("resnet", {"depth": 8, "width": 2, "count": 240}, 15),
}


@pytest.fixture(scope="module")
def mlp():
    return trained("mlp", hidden=[16])


@pytest.mark.parametrize("network", NETWORKS)
def test_errors_of_networks_are_within_the_tolerance_and_mostly_below_their_estimates(network):
    name, options, steps = NETWORKS[network]
    objectives = trained(name, **options)
    parts = {f"part, {loss}": random_part(each, 1 / 8, 0) for loss, each in objectives.items()}
    directions = filter_normalized_directions(objectives["observed"], 2, seed=0)
    full = list(surfaces({**objectives, **parts}, directions, steps=steps).values())
    loss, accuracy = (
        np.stack([getattr(each, name).ravel() for each in full], 1) for name in ("loss", "accuracy")
    )
    axis = full[0].alpha

    def evaluate(multiples, _):
        points = np.abs(axis[:, None] - multiples[:, 0]).argmin(0) * steps
        points += np.abs(axis[:, None] - multiples[:, 1]).argmin(0)
        columns = slice(2, 4) if multiples[0, -1] else slice(2)
        return Values(loss[points, columns], accuracy[points, columns], None, None)

    found = refined_with_part(evaluate, (axis, axis), 0.01, lambda *_: None)
    error, estimate = np.abs(found.values.loss - loss[:, :2]), found.errors.loss
    spread = np.ptp(loss[:, :2], axis=0)
    assert (error.max(0) <= 0.01 * spread).all()
    assert (estimate.max(0) <= 0.01 * spread).all()
    assert found.errors.evaluated.mean() < 0.5
    # as for adaptive surfaces of all samples, errors exceed their estimates at few of the interpolated points
    between = ~found.errors.evaluated
    assert (error > estimate)[between].mean() <= 0.07
    wrong = np.abs(found.values.accuracy - accuracy[:, :2]) > found.errors.accuracy
    assert wrong[between].mean() <= 0.15


def test_the_result_says_what_was_evaluated_where_and_at_which_cost(mlp, tmp_path):
    directions = filter_normalized_directions(mlp["observed"], 2, seed=0)
    plane = surface(mlp["observed"], directions, steps=31, seed=3, **OPTIONS)
    assert plane.samples == 800
    assert plane.part_samples == 100
    assert plane.part_seed == 3
    assert plane.evaluations == plane.evaluated.sum()
    assert (plane.evaluated <= plane.evaluated_on_part).all()
    assert plane.cost == plane.evaluations + plane.evaluated_on_part.sum() / 8
    alone = surface(mlp["observed"], directions, steps=31, adaptive=True)
    assert alone.cost == alone.evaluations > plane.cost
    assert alone.evaluated_on_part is None
    save(tmp_path / "plane.h5", "plane", plane)
    again = load(tmp_path / "plane.h5", "plane")
    for field in fields(plane):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(plane, field.name))


def test_figures_and_topology_take_such_a_surface(mlp):
    directions = filter_normalized_directions(mlp["observed"], 2, seed=0)
    plane = surface(mlp["observed"], directions, steps=21, **OPTIONS)
    figure = contours([("MLP", plane)], loss_name="loss", about="Made data.")
    said = " ".join(text.get_text() for text in figure.texts) + figure.get_supxlabel()
    assert "the shape is that of 100 of the 800 samples" in " ".join(said.split())
    assert topology(plane).loss.min() == plane.loss.min()


def values(loss):
    return Values(loss[:, None], np.full((len(loss), 1), np.nan), None, None)


SPARSE = {name: loss[::2, ::2] for name, loss in FUNCTIONS.items()}
FIRST, SECOND = ALPHA[::2, ::2], BETA[::2, ::2]
AXIS = SECOND[0]


def refine(whole, part, tolerance=0.01):
    """The surface of closed forms, and which points were evaluated on all samples and on the part."""

    def evaluate(multiples, _):
        index = tuple(np.abs(AXIS[:, None] - multiples[:, k]).argmin(0) for k in (0, 1))
        return values((part if multiples[0, -1] else whole)[index])

    found = refined_with_part(evaluate, (AXIS, AXIS), tolerance, lambda *_: None)
    return (each.reshape(whole.shape) for each in (found.values.loss, found.errors.evaluated, found.on_part))


@pytest.mark.parametrize("name", ["valley", "walls", "two basins"])
def test_a_part_that_resembles_the_whole_saves_evaluations(name):
    whole = SPARSE[name]
    part = whole + 0.1 * np.ptp(whole) * (FIRST + SECOND**2)
    found, on_all, on_part = refine(whole, part)
    assert np.abs(found - whole).max() <= 0.01 * np.ptp(whole)
    _, alone, _ = refine(whole, np.zeros_like(whole))
    assert on_all.sum() + on_part.sum() / 8 <= 0.8 * alone.sum()
    assert on_part[on_all].all()


def test_a_part_as_good_as_the_whole_takes_the_first_points_of_the_whole_only():
    whole = SPARSE["two basins"]
    found, on_all, _ = refine(whole, whole)
    assert np.abs(found - whole).max() <= 0.01 * np.ptp(whole)
    assert on_all.sum() <= 30


@pytest.mark.parametrize("part", ["noise", "constant", "another shape"])
def test_a_part_that_does_not_resemble_the_whole_leaves_the_tolerance_and_costs_little_more(part):
    whole = SPARSE["two basins"]
    of_part = {
        "noise": whole + np.random.default_rng(0).uniform(0, 0.3, whole.shape),
        "constant": np.ones_like(whole),
        "another shape": SPARSE["valley"] / 10,
    }[part]
    found, on_all, on_part = refine(whole, of_part)
    _, alone, _ = refine(whole, np.zeros_like(whole))
    assert np.abs(found - whole).max() <= 0.01 * np.ptp(whole)
    assert on_all.sum() + on_part.sum() / 8 <= 1.5 * alone.sum()


@pytest.mark.parametrize("diverges", ["both", "whole"])
def test_points_without_a_finite_loss_are_found_and_never_interpolated(diverges):
    whole = SPARSE["bowl"].copy()
    part = 1.1 * whole
    far = FIRST + SECOND > 1.3
    whole[far] = np.inf
    whole[SECOND - FIRST > 1.5] = np.nan
    if diverges == "both":
        # all samples diverge where a part does
        part[far] = np.inf
    found, on_all, _ = refine(whole, part)
    np.testing.assert_array_equal(np.isinf(found), np.isinf(whole))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(whole))
    finite = np.isfinite(whole)
    error = np.abs(found[finite] - whole[finite])
    assert error.max() <= 0.01 * np.ptp(whole[finite])
    assert on_all[~finite].all()


def test_a_narrow_region_that_only_the_part_has_found_is_evaluated_on_all_samples():
    whole = SPARSE["bowl"].copy()
    there = (AXIS[8] == FIRST) & (AXIS[8] == SECOND)
    whole[there] = np.inf
    found, _, on_part = refine(whole, 1.1 * whole)
    assert on_part[there].all()
    np.testing.assert_array_equal(found[there], np.inf)


def test_a_part_without_the_samples_of_a_class_leaves_the_tolerance():
    model, inputs, targets = build("relu-mlp")
    targets = torch.zeros(37, dtype=torch.long)
    targets[:2] = 1
    objective = Objective(model, cross_entropy, (inputs, targets))
    directions = random_directions(objective, 2)
    part = surface(objective, directions, steps=31, adaptive=True, part=0.2, seed=0)
    full = surface(objective, directions, steps=31)
    assert np.abs(part.loss - full.loss).max() <= 0.01 * np.ptp(full.loss)


def test_standard_errors_of_drawn_samples_are_those_of_the_full_grid(mlp):
    directions = filter_normalized_directions(mlp["observed"], 2, seed=0)
    options = {"steps": 21, "samples": 400}
    full = surface(mlp["observed"], directions, **options)
    found = surface(mlp["observed"], directions, **options, **OPTIONS)
    assert found.part_samples == 50
    for name in ("loss_error", "rise_error"):
        truth, part = getattr(full, name), getattr(found, name)
        np.testing.assert_allclose(part[found.evaluated], truth[found.evaluated], rtol=1e-4, atol=1e-7)
        assert np.abs(part - truth).max() <= 0.1 * np.ptp(truth)


def test_recalibrated_statistics_are_those_of_all_samples():
    model, inputs, targets = build("cnn-batchnorm-dropout")
    objective = Objective(model, cross_entropy, (inputs, targets))
    options = {"steps": 9, "batch_norm": "recalibrate"}
    directions = random_directions(objective, 2)
    full = surface(objective, directions, **options)
    found = surface(objective, directions, **options, adaptive=True, part=0.5)
    assert np.abs(found.loss - full.loss).max() <= 0.01 * np.ptp(full.loss)
    # a point on 18 samples needs the 37 inputs of the statistics as well
    assert found.cost == pytest.approx(found.evaluations + found.evaluated_on_part.sum() * (18 + 37) / 74)


def test_after_a_stop_the_same_call_goes_on_to_the_same_bits(mlp, tmp_path):
    directions = filter_normalized_directions(mlp["observed"], 2, seed=0)

    def plane(path, **options):
        return surface(mlp["observed"], directions, steps=21, checkpoint=path, **{**OPTIONS, **options})

    def stop(done, total):
        if done > 90:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plane(tmp_path / "plane.h5", checkpoint_seconds=0.0, progress=stop)
    with h5py.File(tmp_path / "plane.h5") as file:
        assert 0 < len(file["finished/multiples"]) < 110
    resumed, whole = plane(tmp_path / "plane.h5"), plane(tmp_path / "other.h5")
    for field in fields(whole):
        np.testing.assert_array_equal(getattr(resumed, field.name), getattr(whole, field.name))
    for options in ({"part": 1 / 4}, {"seed": 1}, {"part": None}):
        with pytest.raises(ValueError, match="^checkpoint: .* is of other settings"):
            plane(tmp_path / "plane.h5", **options)


def test_progress_ends_with_all_that_was_asked_for(mlp):
    seen = []
    directions = filter_normalized_directions(mlp["observed"], 2, seed=0)
    surface(mlp["observed"], directions, steps=11, progress=lambda *p: seen.append(p), **OPTIONS)
    assert all(done <= total for done, total in seen)
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"part": 1 / 8, "adaptive": False}, "^part: helps an adaptive surface only; add adaptive=True"),
        ({"part": 0.0}, "^part: must be a share"),
        ({"part": 1}, "^part: must be a share"),
        ({"part": float("nan")}, "^part: must be a number"),
    ],
)
def test_a_part_that_cannot_be_taken_is_refused(options, words, mlp):
    directions = filter_normalized_directions(mlp["observed"], 2, seed=0)
    with pytest.raises(ValueError, match=words):
        surface(mlp["observed"], directions, steps=5, **{**OPTIONS, **options})


@pytest.mark.parametrize("kind", ["stream", "sum"])
def test_data_that_have_no_part_are_refused(kind):
    model, inputs, targets = build("relu-mlp")
    loss, data = {
        "stream": (cross_entropy, [(inputs[:20], targets[:20]), (inputs[20:], targets[20:])]),
        "sum": (nn.CrossEntropyLoss(reduction="sum"), (inputs, targets)),
    }[kind]
    objective = Objective(model, loss, data, keep="none" if kind == "stream" else "auto")
    with pytest.raises(ValueError, match="^part: "):
        surface(objective, random_directions(objective, 2), steps=5, **OPTIONS)
