"""Theorem 1 and Assumption 1 against closed forms worked out by hand."""

import math

import h5py
import pytest
import torch
from torch import nn

import landscape
from analysis.bound import (
    LOSSES,
    assumption_1,
    bound_scalars,
    clipped_cross_entropy,
    complexity,
    measure_bounds,
    perturbation_scale,
    theorem_1,
    zero_one,
)
from landscape import Objective, sharpness


def linear(weights):
    """Two classes, one input: the logits are (w_0 x, w_1 x)."""
    model = nn.Linear(1, 2, bias=False).double()
    model.weight.data = torch.tensor(weights, dtype=torch.float64).view(2, 1)
    return model


def ascent(rho, weights=(0.3, 0.0), **options):
    return sharpness(Objective(linear(weights), nn.CrossEntropyLoss(), (X, OBSERVED)), rho=rho, **options)


X = torch.tensor([[1.0], [1.0], [1.0], [-1.0]], dtype=torch.float64)
# the weights (0.3, 0) predict 0, 0, 0, 1
RIGHT, OBSERVED = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])


def objectives(loss, weights=(0.3, 0.0)):
    model = linear(weights)
    return Objective(model, LOSSES[loss], (X, OBSERVED)), Objective(model, LOSSES[loss], (X, RIGHT))


def test_the_terms_are_those_of_the_formula():
    weights, norm, right, rho, delta = 100, 3.0, 400, 0.5, 0.05
    x = 100 / 4 * math.log(1 + 9 / 0.25 * (1 + math.sqrt(math.log(400) / 100)) ** 2)
    x += 0.25 + math.log(400 / 0.05) + 2 * math.log(6 * 400 + 3 * 100)
    assert complexity(weights, norm, right, rho, delta) == pytest.approx(math.sqrt(x / 399))
    sigma = 0.5 / (10 * (1 + math.sqrt(math.log(400) / 100)))
    assert perturbation_scale(weights, right, rho) == pytest.approx(sigma)


@pytest.mark.parametrize(
    ("rho", "worst"),
    [
        # the logits change places at a distance of 0.3 / sqrt(2) = 0.212 along (-1, 1)
        (0.2, 0.25),
        (0.25, 0.75),
    ],
)
def test_the_maximum_of_the_0_1_loss_is_found_where_the_prediction_flips(rho, worst):
    training, test = objectives("zero_one")
    bound = theorem_1(training, test, 3, loss="zero_one", ascent=ascent(rho))
    assert bound.training_loss == pytest.approx(0.25)
    assert bound.worst_loss == pytest.approx(worst)
    assert bound.empirical == pytest.approx(worst / 0.75)
    assert bound.sampling == pytest.approx(1 / (0.75 * math.sqrt(3)))
    assert bound.clean_loss == 0
    assert bound.right == pytest.approx(bound.empirical + bound.sampling + bound.complexity)
    assert bound.slack == bound.right
    assert bound.vacuous
    assert bound.dominant == "complexity"


def test_clipped_cross_entropy_is_cut_at_one_nat():
    outputs = torch.tensor([[0.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    loss = clipped_cross_entropy(outputs, torch.tensor([0, 0]))
    assert loss.item() == pytest.approx((math.log(2) + 1) / 2)


def test_the_0_1_loss_counts_wrong_predictions_and_nan_as_wrong():
    outputs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    assert zero_one(outputs, torch.tensor([0, 0, 0])).item() == pytest.approx(2 / 3)


def test_the_perturbed_0_1_loss_is_that_of_a_gaussian_margin():
    # w_0 - w_1 = 0.3 plus a Gaussian of standard deviation sqrt(2) sigma: wrong with probability Phi(-0.3 / that)
    _, test = objectives("zero_one")
    found = assumption_1(test, 3, loss="zero_one", rho=0.9, draws=2000)
    scale = math.sqrt(2) * found.sigma
    expected = 0.5 * math.erfc(0.3 / scale / math.sqrt(2))
    assert found.perturbed_loss == pytest.approx(expected, abs=4 * found.standard_error)
    assert found.standard_error == pytest.approx(math.sqrt(expected * (1 - expected) / 2000), rel=0.1)
    assert found.gap == found.perturbed_loss - found.clean_loss


def test_the_perturbation_of_a_seed_is_the_same_in_float32():
    wide, narrow = (
        assumption_1(
            Objective(linear((0.3, 0.0)).to(dtype), nn.CrossEntropyLoss(), (X.to(dtype), RIGHT)),
            3,
            loss="cross-entropy",
            rho=0.9,
            draws=3,
        )
        for dtype in (torch.float64, torch.float32)
    )
    assert narrow.perturbed_loss == pytest.approx(wide.perturbed_loss, rel=1e-5)


def test_results_are_saved_and_loaded_as_landscape_results(tmp_path):
    results = measure_bounds(linear((0.3, 0.0)), (X, OBSERVED), OBSERVED != RIGHT, (X, RIGHT), draws=3)
    assert sorted(results) == [
        f"{kind}/{loss}" for kind in ("assumption", "bound") for loss in sorted(LOSSES)
    ]
    for name, result in results.items():
        landscape.save(tmp_path / "run.h5", name, result)
        assert landscape.load(tmp_path / "run.h5", name) == result


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda training, test: theorem_1(training, test, 1, loss="x", ascent=ascent(0.1)), "right_labels"),
        (lambda training, test: theorem_1(training, test, 5, loss="x", ascent=ascent(0.1)), "right_labels"),
        (
            lambda training, test: theorem_1(training, test, 3, loss="x", ascent=ascent(0.1, norm="linf")),
            "ascent",
        ),
        (
            lambda training, test: theorem_1(training, test, 3, loss="x", ascent=ascent(0.1), delta=1.0),
            "delta",
        ),
        (lambda _, test: assumption_1(test, 3, loss="x", draws=1), "draws"),
    ],
)
def test_what_the_bound_does_not_cover_is_refused(call, field):
    with pytest.raises(ValueError, match=f"^{field}: "):
        call(*objectives("zero_one"))


def test_the_table_of_runs_has_what_was_measured_and_nan_for_the_rest(tmp_path):
    training, test = objectives("zero_one")
    bound = theorem_1(training, test, 3, loss="zero_one", ascent=ascent(0.05))
    landscape.save(tmp_path / "run.h5", "bound/zero_one", bound)
    with h5py.File(tmp_path / "run.h5") as file:
        row = bound_scalars(file)
    assert row["bound_zero_one_slack"] == bound.slack
    assert row["bound_zero_one_slack_converged"] == bound.converged
    assert math.isnan(row["bound_cross_entropy_slack"])
    assert math.isnan(row["assumption_zero_one_gap"])
