import copy

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, line, random_directions, surfaces
from tests.conftest import build

cross_entropy = nn.CrossEntropyLoss()


def case():
    return build("cnn-batchnorm-dropout")


def recalibrated_loss(model, objective, theta, calibration, inputs, targets):
    """By PyTorch itself: a train-mode pass of the calibration inputs, then evaluation mode."""
    model = copy.deepcopy(model).eval()
    nn.utils.vector_to_parameters(theta, model.parameters())
    model[1].train()
    model[1].momentum = 1.0
    with torch.no_grad():
        model(calibration)
        return cross_entropy(model.eval()(inputs), targets).item()


@pytest.mark.parametrize("chunk_size", [10, 37])
def test_recalibration_takes_the_statistics_at_each_point(chunk_size):
    model, inputs, targets = case()
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=chunk_size)
    direction = random_directions(objective, 1).vectors[:, 0]
    profile = line(objective, direction, steps=5, batch_norm="recalibrate")
    truth = [
        recalibrated_loss(model, objective, objective.theta + a * direction, inputs, inputs, targets)
        for a in profile.alpha
    ]
    np.testing.assert_allclose(profile.loss, truth, rtol=1e-10)
    assert profile.loss[2] == profile.center_loss
    assert (profile.batch_norm, profile.calibration_samples) == ("recalibrate", 37)


def test_all_losses_are_measured_with_the_statistics_of_the_calibration_inputs():
    model, inputs, targets = case()
    train, test = slice(0, 25), slice(25, 37)
    objectives = {
        name: Objective(model, cross_entropy, (inputs[rows], targets[rows]))
        for name, rows in (("train", train), ("test", test))
    }
    directions = random_directions(objectives["train"], 2)
    planes = surfaces(objectives, directions, steps=3, batch_norm="recalibrate")
    theta = objectives["train"].theta + directions.vectors.sum(1)
    truth = recalibrated_loss(model, None, theta, inputs[train], inputs[test], targets[test])
    assert planes["test"].loss[2, 2] == pytest.approx(truth, rel=1e-10)
    given = surfaces(objectives, directions, steps=3, batch_norm="recalibrate", calibration=inputs[test])
    truth = recalibrated_loss(model, None, theta, inputs[test], inputs[test], targets[test])
    assert given["test"].loss[2, 2] == pytest.approx(truth, rel=1e-10)
    assert given["train"].calibration_samples == 12


def test_the_stored_statistics_stay_as_they_were():
    model, inputs, targets = case()
    before = copy.deepcopy(model.state_dict())
    objective = Objective(model, cross_entropy, (inputs, targets))
    line(objective, random_directions(objective, 1), steps=3, batch_norm="recalibrate")
    for state in (model.state_dict(), objective.model.state_dict()):
        assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_a_model_without_batch_norm_and_an_unknown_choice_are_named():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    for choice in ("recalibrate", "train"):
        with pytest.raises(ValueError, match="^batch_norm"):
            line(objective, random_directions(objective, 1), steps=3, batch_norm=choice)
    model, inputs, targets = case()
    objective = Objective(model, cross_entropy, (inputs, targets))
    with pytest.raises(ValueError, match="^calibration"):
        line(
            objective,
            random_directions(objective, 1),
            steps=3,
            batch_norm="recalibrate",
            calibration=inputs[:1],
        )
