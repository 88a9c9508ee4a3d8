"""The search for the sharpness on a rugged loss, whose short ascents say little of the highest maximum."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from landscape import Objective, sharpness
from landscape.perturbations.ascent import Ascent, Neighborhood
from landscape.perturbations.search import Search
from tests.landscape.perturbations.exhaustive_ascents import exhaustive
from tests.landscape.perturbations.test_worst_case import hinge


def ended(rise, early=None):
    return Ascent(torch.zeros(0), rise, 0.0, True, first_rise=0.1, early_rise=early or rise)


ENDS = {
    # (rise, rise of the short part) of the first ascents; (rise, is near the highest) of further ones
    # -> converged, unseen
    "smooth": ([(1.0, 0.99), (1.0, 0.99), (0.5, 0.5)], [], True, math.nan),
    "smooth, confirmed from nearby": ([(1.0, 0.99), (0.5, 0.5)], [(1.0, True)], True, math.nan),
    "a low ascent that grows": ([(1.0, 1.0), (1.0, 1.0), (0.8, 0.3)], [], True, math.nan),
    "rugged, no further start": ([(1.0, 0.6), (1.0, 0.99)], [], False, math.nan),
    "rugged, eight led no higher": ([(1.0, 0.6), (1.0, 0.99)], [(0.5, False)] * 8, True, 0.0),
    "rugged, seven led no higher": ([(1.0, 0.6), (1.0, 0.99)], [(0.5, False)] * 7, False, 0.0),
    "rugged, the last led higher": (
        [(1.0, 0.6), (1.0, 0.99)],
        [(0.5, False)] * 8 + [(2.0, False)],
        False,
        1 / 9,
    ),
    "rugged, each ended elsewhere": (
        [(1.0, 0.6)],
        [(1.0, True), *((n / 9, False) for n in range(1, 9))],
        False,
        1.0,
    ),
    "rugged, half ended elsewhere": (
        [(1.0, 0.6)],
        [*((n / 9, False) for n in (1, 2, 3, 4)), *[(1.0, False)] * 4],
        False,
        0.5,
    ),
    "rugged, three of eight ended elsewhere": (
        [(1.0, 0.6)],
        [*((n / 9, False) for n in (1, 2, 3)), *[(1.0, False)] * 5],
        True,
        0.375,
    ),
}


@pytest.mark.parametrize(("first", "further", "converged", "unseen"), ENDS.values(), ids=ENDS)
def test_where_the_highest_ascent_is_long_further_starts_must_lead_no_higher_and_seldom_to_new_maxima(
    first, further, converged, unseen
):
    ascents = [ended(*each) for each in first]
    found = Search(ascents, torch.zeros(()), 0.01, 0.0, list(range(len(ascents)))).with_growth()
    for rise, is_near in further:
        found = found.after(found.joined(ended(rise)), away=None if is_near else len(found.ascents))
    assert found.converged == converged
    assert found.unseen == pytest.approx(unseen, nan_ok=True)


RISES = {
    # further rises after a highest rise of 1, with tol = 0.01 -> idle
    "none": ([0.9, 1.0, 1.0], 3),
    "one by more than tol": ([0.9, 1.02, 1.0], 1),
    "one by less than tol": ([0.9, 1.005, 1.0], 3),
    "two by less than tol, more together": ([1.006, 1.012, 1.0], 1),
    "eight by less than tol": ([1.009**n for n in range(1, 9)], 0),
}


@pytest.mark.parametrize(("rises", "idle"), RISES.values(), ids=RISES)
def test_small_rises_of_further_starts_add_up(rises, idle):
    found = Search([ended(1.0)], torch.zeros(()), 0.01, 0.0, [0])
    for rise in rises:
        found = found.after(found.joined(ended(rise)))
    assert found.idle == idle


FALLING = Ascent(torch.zeros(0), 0.0, math.nan, False, first_rise=-0.2, early_rise=-0.1)
KINK = Ascent(torch.zeros(0), 0.5, 0.1, False, first_rise=0.5, early_rise=0.5)
KNOWN = {
    # the ascents, of which the second is that of a further start -> unseen
    "no other": ([ended(1.0), ended(0.5)], 1.0),
    "one that ended": ([ended(1.0), ended(0.5), ended(0.5)], 0.0),
    "one that may go on": ([ended(1.0), ended(0.5), replace(ended(0.5), is_finished=False)], 1.0),
    "one that fell and may go on": ([ended(1.0), FALLING, replace(FALLING, is_finished=False)], 1.0),
    "one that fell and ended": ([ended(1.0), FALLING, FALLING], 0.0),
    "one that ended, of one that is not stationary": ([ended(1.0), KINK, ended(0.5)], 0.0),
    "none, of one that is not stationary": ([ended(1.0), KINK, ended(0.7)], 1.0),
}


@pytest.mark.parametrize(("ascents", "unseen"), KNOWN.values(), ids=KNOWN)
def test_the_end_of_a_further_start_is_known_if_another_ascent_ended_there(ascents, unseen):
    assert Search(ascents, torch.zeros(()), 0.01, 0.0, [0], away=(1,)).unseen == unseen


def of_many_classes():
    """Twenty of the thirty classes are drawn as starts, which makes the loss rugged."""
    data = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 30
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Objective(nn.Linear(3, 30), nn.CrossEntropyLoss(), data)


def test_ascents_that_have_ended_do_not_begin_anew():
    """With 8 steps, every ascent ends with its short part. No ascent can go on, and each further start is new."""
    found = sharpness(of_many_classes(), rho=5.0, steps=8, restarts=2)
    first = 1 + 2 * found.directions + found.outputs
    assert len(found.starts) == first + 8


@pytest.mark.parametrize("restarts", [0, 1])
def test_fewer_than_two_restarts_never_converge_on_a_rugged_loss(restarts):
    found = sharpness(of_many_classes(), rho=0.1, restarts=restarts)
    assert found.idle == 4 * restarts
    assert not found.converged


@pytest.fixture(scope="module")
def hinge_network():
    """A trained network whose loss has several maxima in balls as large as its weights; to some, few starts lead."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(100) % 2
    inputs = 1.2 * torch.randn(2, 6, generator=generator)[labels] + torch.randn(100, 6, generator=generator)
    data = inputs.double(), (2.0 * labels - 1)[:, None].double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(100):
        optimizer.zero_grad()
        hinge(model(data[0]), data[1]).backward()
        optimizer.step()
    return Objective(model, hinge, data)


@pytest.mark.parametrize("share", [0.4, 1.5])
def test_in_balls_as_large_as_the_weights_converged_is_not_said_of_a_missed_maximum(share, hinge_network):
    """In the larger ball, the search misses a maximum that few of 200 ascents reach."""
    rho = share * float(hinge_network.theta.norm())
    truth = exhaustive(hinge_network, Neighborhood(rho, "l2", 1.0), starts=200)
    found = sharpness(hinge_network, rho=rho)
    assert found.converged == (found.value >= 0.97 * truth)


def test_in_float32_a_ball_may_be_so_large_that_sums_of_squares_nearly_overflow():
    data = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    objective = Objective(model, nn.CrossEntropyLoss(), data)
    # far out the units are saturated and the loss grows in proportion to the radius
    near, far = (sharpness(objective, rho=rho, restarts=1).value / rho for rho in (1e15, 1e18))
    assert far == pytest.approx(near, rel=0.01)
