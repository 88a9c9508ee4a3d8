"""A default device of torch changes nothing: the model and the data say where work is done.

The device "meta" holds no numbers, so that a tensor that was made on the default device by oversight ends in an error.
"""

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from landscape import Objective
from ncsam import build_method, corrupt_labels, fit, load_dataset, predict

SAMPLES, FEATURES, CLASSES = 40, 6, 3


def network(seed):
    torch.manual_seed(seed)
    layers = (nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, CLASSES))
    return nn.Sequential(*layers).eval()


ONE, OTHER = network(0), network(1)


@pytest.fixture(scope="module")
def objective():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, FEATURES, generator=generator)
    targets = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    return Objective(network(0), nn.CrossEntropyLoss(), (inputs, targets), chunk_size=16)


def plane(objective):
    return landscape.filter_normalized_directions(objective, 2, seed=0)


def checkpoints(objective):
    return [objective.theta * scale + shift for scale, shift in ((0.5, 0.1), (0.8, -0.1), (1.0, 0.0))]


MEASURES = {
    "evaluation": lambda o: o.evaluate().loss,
    "eigenvalues": lambda o: landscape.top_eigenvalues(o, 2).values,
    "trace": lambda o: landscape.trace(o, max_products=20).value,
    "Hutchinson's trace": lambda o: landscape.trace(o, method="hutchinson", max_products=20).value,
    "trace by a part": lambda o: landscape.trace(o, part=1 / 4, max_products=60).value,
    "layer traces": lambda o: landscape.layer_traces(o).values,
    "density": lambda o: landscape.spectral_density(o).density,
    "diagonal": lambda o: landscape.diagonal(o).values,
    "parts of the curvature": lambda o: landscape.curvature_parts(o).jacobian_trace,
    "relative flatness": lambda o: landscape.relative_flatness(o).value,
    "gradient noise": lambda o: landscape.gradient_noise(o).value,
    "curvature of samples": lambda o: landscape.sample_curvature(o).gauss_newton_trace,
    "sharpness": lambda o: landscape.sharpness(o, rho=0.1).value,
    "adaptive sharpness in a box": lambda o: (
        landscape.sharpness(o, rho=0.01, norm="linf", adaptive="filter").value
    ),
    "average sharpness": lambda o: landscape.average_sharpness(o, sigma=0.1).value,
    "noise tolerance": lambda o: landscape.pac_bayes_sigma(o).sigma,
    "critical sharpness": lambda o: landscape.critical_sharpness(o, -o.gradient()).value,
    "sharpness profile": lambda o: landscape.sharpness_profile(o, measures=["worst, ball", "average"]).value,
    "surface": lambda o: landscape.surface(o, plane(o), steps=5).loss,
    "adaptive surface": lambda o: landscape.surface(o, plane(o), steps=21, adaptive=True).loss,
    "adaptive surface by a part": lambda o: (
        landscape.surface(o, plane(o), steps=21, adaptive=True, part=1 / 4).loss
    ),
    "trajectory": lambda o: landscape.trajectory_directions(o, checkpoints(o))[1].coordinates,
    "sampling error": lambda o: landscape.sampling_error(o, landscape.top_eigenvalues(o, 1)).standard_errors,
    "path": lambda o: landscape.path(o, OTHER, steps=5).loss,
    "low-loss bend": lambda o: landscape.low_loss_bend(o, OTHER, steps=4, batch_size=8).vector,
    "matched units": lambda _: landscape.matched(ONE, OTHER)[1].distance_after,
}


@pytest.mark.parametrize("name", MEASURES)
def test_no_measure_depends_on_the_default_device(objective, name):
    expected = MEASURES[name](objective)
    with torch.device("meta"):
        found = MEASURES[name](objective)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", train_samples=200, test_samples=50)


METHODS = {"plain": {}, "sam": {"rho": 0.1}, "ncsam": {"rho": 0.1, "flip_ratio": 0.4, "strength": 0.1}}


def trained(digits, name):
    torch.manual_seed(0)
    with torch.device("cpu"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    train, held_out = digits.train, digits.test
    labels = corrupt_labels(train.targets, kind="symmetric", rate=0.4, seed=0)
    method = build_method(
        name, model, nn.CrossEntropyLoss(), seed=0, clean_targets=train.targets, **METHODS[name]
    )
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    fit(method, optimizer, train, labels, held_out, epochs=2, batch_size=32, seed=0)
    return predict(model, held_out.inputs)


@pytest.mark.parametrize("name", METHODS)
def test_no_training_depends_on_the_default_device(digits, name):
    expected = trained(digits, name)
    with torch.device("meta"):
        found = trained(digits, name)
    assert torch.equal(found, expected)
