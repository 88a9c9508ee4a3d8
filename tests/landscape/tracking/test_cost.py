"""What a tracker spends, by a clock that moves only when somebody works."""

import pytest
import torch
from torch import nn

from landscape import Objective, Tracker
from landscape.tracking.cost import Cost
from landscape.tracking.measures import Measure


class FakeClock:
    """Seconds that pass when work is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(steps, *, costs, at_most, seconds_a_step=1.0):
    """The tracker, and how often each measure was taken in so many steps."""
    clock = FakeClock()
    taken = dict.fromkeys(costs, 0)

    def measure(name, cost):
        def take(_):
            taken[name] += 1
            clock.now += cost
            return {name: 0.0}

        return Measure(name, take, {name: ("", "")}, forecast=1.0)

    model = nn.Linear(2, 2)
    objective = Objective(model, nn.MSELoss(), (torch.randn(8, 2), torch.randn(8, 2)))
    tracker = Tracker(
        objective,
        every=1,
        measures=[measure(name, cost) for name, cost in costs.items()],
        at_most=at_most,
        clock=clock,
    )
    for _ in range(steps):
        clock.now += seconds_a_step
        tracker.step(model)
    return tracker, taken


@pytest.mark.parametrize("at_most", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("cost", [0.05, 0.3, 4.0])
def test_the_share_is_kept_up_to_the_first_look_and_used(at_most, cost):
    tracker, taken = run(500, costs={"one": cost}, at_most=at_most)
    # the first look, whose forecast was too low, is waited for
    assert tracker.cost.measuring <= at_most * tracker.cost.training + 1e-9
    looks = min(500, at_most * 500 / cost)
    assert looks - 2 <= taken["one"] <= looks + 1
    assert tracker.cost.measuring == pytest.approx(taken["one"] * cost)
    assert tracker.cost.training == pytest.approx(500)


def test_a_cheap_measure_is_taken_often_beside_an_expensive_one_that_gets_what_is_left():
    tracker, taken = run(400, costs={"cheap": 0.01, "expensive": 5.0}, at_most=0.1)
    # the first expensive look, whose forecast was too low, is waited for during 49 steps; then 40 seconds are used
    assert taken == {"cheap": 351, "expensive": 7}
    assert tracker.cost.share <= 0.1
    assert tracker.cost.put_off == {"cheap": 49, "expensive": 393}
    assert "expensive 393 times" in tracker.cost_so_far()


def looks(steps, seconds, *, at_most=0.1):
    """The cost, and the steps at which each measure is taken. Forecasts are right, and a step takes a second."""
    clock = FakeClock()
    cost = Cost(at_most, len(seconds), clock)
    taken = {name: [] for name in seconds}
    for step in range(1, steps + 1):
        clock.now += 1.0
        for name in cost.in_turn(seconds):
            with cost.of(name):
                clock.now += seconds[name]
            taken[name].append(step)
        assert cost.measuring <= at_most * cost.training + 1e-9
    return cost, taken


STANDARD = {"loss": 0.005, "critical": 0.02, "movement": 0.001}


@pytest.mark.parametrize(("steps", "eigenvalues"), [(2, 0.14), (10, 0.7), (26, 1.8)])
def test_in_a_short_training_an_expensive_look_that_fits_the_allowance_is_taken(steps, eigenvalues):
    """An equal part of the allowance, a quarter, would not cover it."""
    assert eigenvalues > 0.1 * steps / 4
    _, taken = looks(steps, {**STANDARD, "eigenvalues": eigenvalues})
    assert len(taken["eigenvalues"]) == 1
    # the cheap ones wait while the allowance is saved
    assert all(len(taken[name]) >= 0.75 * steps for name in STANDARD)


def test_cheap_measures_that_would_use_all_the_time_leave_the_first_look_of_an_expensive_one():
    _, taken = looks(20, {"loss": 0.1, "movement": 0.1, "eigenvalues": 1.0})
    # from step 10 on, when 0.9 seconds are spent, the others wait until a second is saved
    assert taken["eigenvalues"] == [19]


def test_nothing_is_saved_for_a_measure_that_the_whole_allowance_does_not_cover():
    _, taken = looks(26, {"hopeless": 100.0, "loss": 0.005, "eigenvalues": 1.2})
    assert len(taken["eigenvalues"]) == 2
    assert taken["hopeless"] == []


@pytest.mark.parametrize(
    "seconds",
    [
        {"one": 1.0, "other": 1.0},
        {"cheap": 0.08, "expensive": 6.0},
        {"cheap": 0.2, "medium": 1.5, "expensive": 9.0},
    ],
)
def test_every_measure_has_its_part_in_the_long_run_and_the_allowance_is_used(seconds):
    cost, taken = looks(1000, seconds)
    part = 0.1 * 1000 / len(seconds)
    for name, each in seconds.items():
        most = min(1000, part / each)
        assert len(taken[name]) >= most - 2
    assert cost.measuring >= 0.1 * 1000 - sum(seconds.values())


def test_after_a_look_that_took_longer_than_expected_all_measures_wait():
    clock = FakeClock()
    cost = Cost(0.1, 2, clock)
    clock.now += 10.0
    with cost.of("long"):
        clock.now += 3.0
    clock.now += 10.0
    assert list(cost.in_turn({"long": 0.1, "cheap": 0.01})) == []
    clock.now += 10.2
    assert list(cost.in_turn({"long": 0.1, "cheap": 0.01})) == ["cheap"]


def test_without_a_bound_every_due_look_is_taken():
    _, taken = run(50, costs={"one": 100.0}, at_most=None)
    assert taken == {"one": 50}


def test_the_track_says_what_was_measured_and_what_it_took():
    tracker, _ = run(100, costs={"cheap": 0.01, "expensive": 2.0}, at_most=0.1)
    track = tracker.track()
    assert track.measured[:, list(track.metric).index("expensive")].sum() < len(track.step)
    assert (track.training_seconds[1:] > track.training_seconds[:-1]).all()
    assert track.measuring_seconds[-1] == pytest.approx(tracker.cost.measuring)
