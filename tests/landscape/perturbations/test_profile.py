"""Relative flatness against the dense Hessian, and the table of all measures against each by itself."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import (
    Objective,
    average_sharpness,
    pac_bayes_sigma,
    relative_flatness,
    sharpness,
    sharpness_profile,
)
from landscape.perturbations.profile import MEASURES
from tests.conftest import build, dense_hessian, rescaled_relu_network

cross_entropy = nn.CrossEntropyLoss()


def dense_flatness(name, layer):
    """sum_{s, s'} <w_s, w_s'> Tr H_{s, s'} from the whole Hessian."""
    model, inputs, targets = build(name)
    hessian = dense_hessian(model, inputs, targets)
    start = 0
    for key, parameter in model.named_parameters():
        if key == layer:
            weights = parameter.detach().flatten(1)
            size = weights.numel()
            block = hessian[start : start + size, start : start + size]
            block = block.view(*weights.shape, *weights.shape)
            return torch.einsum("si,ti,sjtj->", weights, weights, block).item()
        start += parameter.numel()
    raise KeyError(layer)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("relu-mlp", "3.weight"),
        ("mlp", "1.weight"),
        ("cnn-batchnorm-dropout", "6.weight"),
        ("cnn-batchnorm-dropout", "0.weight"),
    ],
)
def test_relative_flatness_is_that_of_the_dense_hessian(name, layer):
    model, inputs, targets = build(name)
    objective = Objective(model, cross_entropy, (inputs, targets))
    found = relative_flatness(objective, layer, rtol=None, max_products=2000)
    assert found.value == pytest.approx(dense_flatness(name, layer), rel=1e-8)
    assert found.layer == layer


def test_few_products_give_an_interval_that_holds_it():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    truth = dense_flatness("mlp", "1.weight")
    held = [
        f.low <= truth <= f.high
        for f in (
            relative_flatness(objective, "1.weight", rtol=None, max_products=16, seed=s) for s in range(40)
        )
    ]
    # 95% intervals, 40 draws
    assert np.mean(held) >= 0.8


def test_rescaling_a_relu_network_leaves_its_relative_flatness():
    values = []
    for factor in (1.0, 4.0):
        objective = Objective(*rescaled_relu_network(factor))
        values.append(relative_flatness(objective, rtol=None, max_products=100).value)
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def objectives_of(name="relu-mlp"):
    model, inputs, targets = build(name)
    return {
        "observed": Objective(model, cross_entropy, (inputs, targets)),
        "clean": Objective(model, cross_entropy, (inputs, (targets + 1) % 3)),
        "test": Objective(model, cross_entropy, (inputs[:20] + 0.1, targets[:20])),
    }


@pytest.fixture(scope="module")
def profile():
    return sharpness_profile(objectives_of(), steps=4, max_draws=16)


def cell(profile, measure, loss, field="value"):
    row = list(profile.measure).index(measure)
    return getattr(profile, field)[row, list(profile.loss).index(loss)]


def test_every_measure_is_in_the_table_with_source_error_and_cost(profile):
    worst = [name for name in MEASURES if name.startswith("worst")]
    assert set(profile.measure) == {*MEASURES, *(f"{name}, one step" for name in worst)}
    assert np.isfinite(profile.value).all()
    assert all(profile.source)
    lower = profile.bound == "lower bound"
    assert (profile.bound[[m in worst for m in profile.measure]] == "lower bound").all()
    assert np.isnan(profile.error[lower]).all()
    assert np.isfinite(profile.error[~lower]).all()
    spent = profile.gradients + profile.evaluations + profile.products
    one_step = np.array([m.endswith("one step") for m in profile.measure])
    assert (spent[~one_step] > 0).all()


@pytest.mark.parametrize("loss", ["observed", "clean", "test"])
def test_the_table_holds_what_each_measure_gives_by_itself(profile, loss):
    objective = objectives_of()[loss]
    for name, measure in MEASURES.items():
        if measure.family == "worst":
            alone = sharpness(
                objective, rho=measure.size, norm=measure.norm, adaptive=measure.adaptive, steps=4
            )
            assert cell(profile, name, loss) == pytest.approx(alone.value, rel=1e-9)
            assert cell(profile, f"{name}, one step", loss) == pytest.approx(alone.one_step, rel=1e-9)
            assert alone.one_step <= alone.value
    gradient = objective.gradient().norm().item()
    assert cell(profile, "gradient norm", loss) == pytest.approx(gradient, rel=1e-12)
    average = average_sharpness(objective, sigma=0.1, adaptive="elementwise", max_draws=16)
    assert cell(profile, "average, elementwise", loss) == pytest.approx(average.value, rel=0.5)
    alone = pac_bayes_sigma(objective, max_draws=16)
    assert alone.low <= cell(profile, "PAC-Bayes sigma", loss) <= alone.high


def test_losses_share_the_noise_and_its_passes():
    together = sharpness_profile(objectives_of(), measures=["average"], max_draws=16, rtol=1e-9)
    alone = sharpness_profile(objectives_of()["test"], measures=["average"], max_draws=16, rtol=1e-9)
    assert cell(together, "average", "test") == pytest.approx(cell(alone, "average", "loss"), rel=1e-9)


def test_sizes_can_be_given():
    small = sharpness_profile(objectives_of(), measures=["worst, ball"], steps=2)
    large = sharpness_profile(objectives_of(), measures=["worst, ball"], sizes={"worst, ball": 0.5}, steps=2)
    assert (large.value > small.value).all()
    assert (large.size == 0.5).all()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"measures": ["flat"]}, "measures"),
        ({"measures": ["average"], "sizes": {"worst, ball": 1.0}}, "sizes"),
        ({"sizes": {"average": -1.0}}, "sizes"),
        ({"sizes": {"gradient norm": 0.1}}, "sizes: 'gradient norm' has no size"),
        ({"sizes": {"relative flatness": 0.1}}, "sizes: 'relative flatness' has no size"),
        ({"measures": ["average", "gradient norm", "average"]}, "measures: 'average' is named twice"),
        ({"measures": "average"}, "measures: must be a list"),
        ({"measures": []}, "measures: none is named"),
        ({"rtol": 0}, "rtol"),
        ({"steps": 0}, "steps"),
        ({"layer": "typo"}, "layer: must be one of"),
        ({"max_products": 1}, "max_products: xtrace needs at least 4, got 1"),
    ],
)
def test_bad_arguments_are_named(options, field):
    given = objectives_of()
    with pytest.raises(ValueError, match=f"^{field}"):
        sharpness_profile(given, **options)
    assert {each.gradients for each in given.values()} == {0}


def test_bad_arguments_of_relative_flatness_are_named():
    objective = objectives_of()["test"]
    with pytest.raises(ValueError, match="^layer"):
        relative_flatness(objective, "1.bias")
