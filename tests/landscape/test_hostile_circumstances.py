"""Models without numbers, callers' settings of NumPy and torch, and classes that a loss does not count."""

import math

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import landscape


def an_objective(classes=3, loss_fn=None, *, nan=False, samples=30):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
        if nan:
            model[0].weight[0, 0] = math.nan
    inputs = torch.randn(samples, 6, generator=generator)
    return landscape.Objective(
        model, loss_fn or nn.CrossEntropyLoss(), (inputs, torch.arange(samples) % classes)
    )


def test_noise_that_a_model_without_a_loss_tolerates_is_no_number():
    found = landscape.pac_bayes_sigma(an_objective(nan=True))
    assert math.isnan(found.sigma)
    assert not found.converged
    profile = landscape.sharpness_profile({"a": an_objective(nan=True)}, steps=2)
    assert np.isnan(profile.value).all()
    assert np.isnan(profile.error).all()
    assert not profile.converged.any()


@pytest.mark.parametrize("weighted", [0, 1, 250, 498, 499])
def test_one_weighted_or_ignored_class_of_hundreds_is_found(weighted):
    weight = torch.ones(500)
    weight[weighted] = 2
    for loss_fn in (nn.CrossEntropyLoss(weight=weight), nn.CrossEntropyLoss(ignore_index=weighted)):
        with pytest.raises(ValueError, match=r"^loss_fn: is not the mean over the samples"):
            an_objective(500, lambda z, y, loss_fn=loss_fn: loss_fn(z, y), samples=1000)
    an_objective(500, samples=1000)


MEASURES = {
    "density": lambda: landscape.spectral_density(an_objective(), steps=8, probes=2).density,
    "trace": lambda: [landscape.trace(an_objective(), max_products=20).value],
    "surface": lambda: plane().loss,
    "sharpness": lambda: [landscape.sharpness(an_objective(), rho=0.1).value],
    "profile": lambda: (
        landscape.sharpness_profile({"a": an_objective()}, steps=2, measures=["worst, ball"]).value
    ),
    "flatness": lambda: [landscape.relative_flatness(an_objective(), max_products=20).value],
    "sigma": lambda: [landscape.pac_bayes_sigma(an_objective(), max_draws=20).sigma],
}


def plane():
    objective = an_objective()
    return landscape.surface(objective, landscape.filter_normalized_directions(objective, 2, seed=0), steps=5)


CONTEXTS = {
    "NumPy raises": lambda: np.errstate(all="raise"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("measure", MEASURES)
def test_numbers_are_the_same_in_a_callers_context(measure, context):
    expected = MEASURES[measure]()
    with CONTEXTS[context]():
        np.testing.assert_array_equal(MEASURES[measure](), expected)


def test_surfaces_are_the_same_in_inference_mode():
    expected = plane().loss
    with torch.inference_mode():
        np.testing.assert_array_equal(plane().loss, expected)


def test_a_surfaces_checkpoint_whose_numbers_were_changed_is_refused(tmp_path):
    path = tmp_path / "plane.h5"
    objective = an_objective()
    directions = landscape.filter_normalized_directions(objective, 2, seed=0)
    landscape.surface(objective, directions, steps=5, checkpoint=path)
    with h5py.File(path, "a") as file:
        file["finished/values"][0, 3, 0] += 1
    with pytest.raises(ValueError, match=r"^checkpoint: .*plane.h5 is not a whole checkpoint"):
        landscape.surface(objective, directions, steps=5, checkpoint=path)
