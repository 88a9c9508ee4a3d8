"""A result says the unit of its losses: nat for log-likelihoods, none where the loss is another."""

from functools import partial

import h5py
import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import (
    Objective,
    average_sharpness,
    filter_normalized_directions,
    line,
    load,
    low_loss_bend,
    pac_bayes_sigma,
    path,
    save,
    sharpness,
    sharpness_profile,
    surface,
)
from landscape.loss.units import unit_of

CASES = (
    (nn.CrossEntropyLoss(label_smoothing=0.1), "nat"),
    (functional.cross_entropy, "nat"),
    (partial(functional.cross_entropy, label_smoothing=0.1), "nat"),
    (nn.NLLLoss(), "nat"),
    (nn.BCEWithLogitsLoss(), "nat"),
    (nn.MSELoss(), ""),
    (functional.mse_loss, ""),
    (lambda outputs, targets: (outputs - targets).square().mean(), ""),
)


@pytest.mark.parametrize(("loss_fn", "unit"), CASES)
def test_only_log_likelihoods_are_in_nat(loss_fn, unit):
    assert unit_of(loss_fn) == unit


def objective_of(loss_fn, targets, dtype=torch.float32):
    torch.manual_seed(0)
    return Objective(nn.Linear(3, 2), loss_fn, (torch.randn(8, 3), targets))


def results(objective):
    directions = filter_normalized_directions(objective, 2, seed=0)
    other = objective.theta + 0.1
    yield line(objective, directions, steps=3)
    yield surface(objective, directions, steps=3)
    yield sharpness(objective, rho=0.1, steps=3)
    yield average_sharpness(objective, sigma=0.1, max_draws=8)
    yield pac_bayes_sigma(objective, max_draws=8)
    yield sharpness_profile(objective, measures=["gradient norm"])
    yield path(objective, other, steps=3)
    yield low_loss_bend(objective, other, steps=2, batch_size=4)


@pytest.mark.parametrize(
    ("loss_fn", "targets", "unit"),
    [
        (nn.MSELoss(), torch.ones(8, 2), ""),
        (nn.CrossEntropyLoss(), torch.arange(8) % 2, "nat"),
    ],
)
def test_every_stored_loss_has_the_unit_of_the_loss_that_was_measured(loss_fn, targets, unit, tmp_path):
    file = tmp_path / "results.h5"
    for result in results(objective_of(loss_fn, targets)):
        save(file, type(result).__name__, result)
        assert load(file, type(result).__name__).loss_unit == unit
    units = set()
    with h5py.File(file) as opened:
        opened.visititems(lambda _, item: units.add(item.attrs.get("units", "")))
    assert ("nat" in units) == (unit == "nat")
    assert "unit of the loss" not in units
