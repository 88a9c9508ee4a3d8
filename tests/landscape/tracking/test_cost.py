"""What a tracker spends, by a clock that moves only when somebody works."""

import pytest
import torch
from torch import nn

from landscape import Objective, Tracker
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


def test_a_cheap_measure_is_taken_often_beside_an_expensive_one():
    tracker, taken = run(400, costs={"cheap": 0.01, "expensive": 5.0}, at_most=0.1)
    # each has half of the 40 seconds
    assert taken == {"cheap": 400, "expensive": 4}
    assert tracker.cost.share <= 0.1
    assert tracker.cost.put_off == {"expensive": 396}
    assert "expensive 396 times" in tracker.cost_so_far()


def test_without_a_bound_every_due_look_is_taken():
    _, taken = run(50, costs={"one": 100.0}, at_most=None)
    assert taken == {"one": 50}


def test_the_track_says_what_was_measured_and_what_it_took():
    tracker, _ = run(100, costs={"cheap": 0.01, "expensive": 2.0}, at_most=0.1)
    track = tracker.track()
    assert track.measured[:, list(track.metric).index("expensive")].sum() < len(track.step)
    assert (track.training_seconds[1:] > track.training_seconds[:-1]).all()
    assert track.measuring_seconds[-1] == pytest.approx(tracker.cost.measuring)
