"""As many samples as a sampling error needs: against the numbers of all samples, over draws of the order."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, enough_samples, sharpness, top_eigenvalues, trace
from tests.conftest import build

cross_entropy = nn.CrossEntropyLoss()
RTOL, DRAWS = 0.15, 25


@pytest.fixture(scope="module")
def objective():
    """A classifier of 4 inputs, one of them larger, so that an eigenvalue is apart; wrong labels, 4,000 samples."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4000, 4, generator=generator, dtype=torch.float64)
    inputs[:, 3] *= 2
    targets = (inputs[:, :3] + torch.randn(4000, 3, generator=generator)).argmax(1)
    model = nn.Linear(4, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.eye(3, 4))
        model.bias.zero_()
    return Objective(model, cross_entropy, (inputs, targets), chunk_size=4000, linearize=False)


def eigenvalue(part):
    return top_eigenvalues(part, tol=1e-2)


MEASURES = {
    "top eigenvalue": (eigenvalue, lambda found: found.values[0]),
    "loss": (lambda part: part.evaluate(), lambda found: found.loss),
}


@pytest.mark.parametrize("name", MEASURES)
def test_the_part_gives_the_number_of_all_samples_to_within_the_error_that_was_asked_for(objective, name):
    measure, value = MEASURES[name]
    truth = value(measure(objective))
    drawn = [
        enough_samples(objective, measure, rtol=RTOL, first=48, groups=16, seed=seed) for seed in range(DRAWS)
    ]
    errors = np.array([value(each.measured) / truth - 1 for each in drawn])
    # the mean square of 25 errors is at most twice that allowed, but for 2 in 1,000
    assert np.mean(errors**2) <= 2 * RTOL**2
    held = np.mean([each.sampling.low[0] <= truth <= each.sampling.high[0] for each in drawn])
    # 25 draws of 95% intervals hold the truth in 80% or more, but for 1 in 1,000
    assert held >= 0.8
    assert np.median([each.samples for each in drawn]) < 1000


@pytest.mark.parametrize(
    "measure",
    [
        eigenvalue,
        lambda part: trace(part, rtol=0.02, max_products=15),
        lambda part: sharpness(part, rho=0.3),
        lambda part: part.evaluate(),
    ],
    ids=["eigenvalue", "trace", "sharpness", "loss"],
)
def test_each_measure_stops_when_its_sampling_error_is_as_asked_for(objective, measure):
    found = enough_samples(objective, measure, rtol=0.1)
    error = found.sampling
    assert (np.hypot(error.standard_errors, error.biases) <= 0.1 * np.abs(error.values)).all()
    assert found.samples == found.objective.n_samples == error.samples < objective.n_samples
    assert error.drawn == found.samples / objective.n_samples


def test_all_samples_are_used_where_fewer_are_not_enough_and_leave_no_sampling_error(objective):
    found = enough_samples(objective, eigenvalue, rtol=1e-6, first=1000)
    assert found.tried == (1000, 4000)
    assert found.objective is objective
    assert found.measured.values == pytest.approx(eigenvalue(objective).values, rel=1e-3)
    assert found.sampling.standard_errors[0] == 0
    # what is left is the numerical error
    assert (found.measured.values - found.sampling.low <= 1.1 * found.measured.errors).all()


@pytest.mark.parametrize(("rtol", "first"), [(0.02, 32), (1e-6, 1000), (1e-6, 2100)])
def test_all_tries_together_cost_at_most_three_times_the_last_one(objective, rtol, first):
    seen = []

    def measure(part):
        seen.append(part.n_samples)
        return part.evaluate()

    found = enough_samples(objective, measure, rtol=rtol, first=first)
    assert tuple(seen) == found.tried
    assert len(seen) > 1
    assert sum(seen) <= 3 * seen[-1]
    assert all(later >= min(2 * earlier, 4000) for earlier, later in itertools.pairwise(seen))


def test_larger_parts_hold_the_smaller_ones_and_a_seed_draws_them_again(objective):
    parts = [
        {
            tuple(row)
            for row in enough_samples(objective, eigenvalue, rtol=rtol, seed=3).objective.inputs.tolist()
        }
        for rtol in (0.2, 0.05, 0.05)
    ]
    assert parts[0] < parts[1]
    assert parts[1] == parts[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": 0.0}, "rtol: must be positive, got 0.0"),
        ({"first": 10}, "first: must be at least the number of groups, 32, got 10"),
    ],
)
def test_what_cannot_be_is_refused(objective, options, message):
    with pytest.raises(ValueError, match=message):
        enough_samples(objective, eigenvalue, **options)


def test_fewer_samples_than_the_first_try_takes_are_all_measured():
    model, inputs, targets = build("mlp")
    whole = Objective(model, cross_entropy, (inputs, targets))
    assert enough_samples(whole, eigenvalue).tried == (37,)
