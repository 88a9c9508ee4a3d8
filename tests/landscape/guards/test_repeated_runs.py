"""Two runs of one computation that differ: float64 decides below a limit, and in half precision."""

import random

import pytest
import torch

from landscape.guards.loss_value import check_that_it_repeats
from landscape.guards.repeated_runs import changes, share_apart

VERDICTS = {
    # dtype, relative difference, relative difference in float64 -> whether the outputs changed
    "equal": (torch.float32, 0.0, 1e-6, False),
    "float64 sees a change": (torch.float32, 1e-6, 1e-6, True),
    "float64 sees none": (torch.float32, 1e-6, 1e-12, False),
    "float64 sees none of a large one": (torch.float32, 1e-3, 0.0, True),
    "small, no float64": (torch.float32, 5e-5, None, False),
    "large, no float64": (torch.float32, 2e-4, None, True),
    "double, float64 sees a change": (torch.float64, 1e-6, 1e-6, True),
    "half, float64 sees a change": (torch.bfloat16, 0.01, 1e-6, True),
    "half, float64 sees none of a large one": (torch.bfloat16, 0.1, 0.0, False),
    "half, small, no float64": (torch.bfloat16, 0.01, None, False),
    "half, large, no float64": (torch.bfloat16, 0.1, None, True),
}


@pytest.mark.parametrize(("dtype", "share", "precise", "expected"), VERDICTS.values(), ids=VERDICTS)
def test_float64_decides_on_small_differences_and_a_limit_on_others(dtype, share, precise, expected):
    outputs = torch.ones(5, dtype=dtype)
    again = (outputs.double() * (1 + share)).to(dtype)
    assert changes(share_apart(again, outputs), outputs, lambda: precise) == expected


nan, inf = float("nan"), float("inf")
APART = {
    "equal": ([1.0, 2.0], [1.0, 2.0], 0.0),
    "a share of the largest": ([1.0, 4.0], [1.5, 4.0], 0.125),
    "from zero": ([0.0, 0.0], [0.0, 3.0], 1.0),
    "to zero": ([0.0, 3.0], [0.0, 0.0], 1.0),
    "equal NaN": ([nan, 2.0], [nan, 2.0], 0.0),
    "another NaN": ([nan, 2.0], [1.0, 2.0], inf),
    "infinity of another sign": ([inf, 2.0], [-inf, 2.0], inf),
    "infinity, then NaN": ([inf, 2.0], [nan, 2.0], inf),
    "another shape": ([1.0], [1.0, 2.0], inf),
    "nothing": ([], [], 0.0),
}


@pytest.mark.parametrize(("before", "after", "share"), APART.values(), ids=APART)
def test_results_differ_by_a_share_of_their_largest_entry(before, after, share):
    before, after = torch.tensor(before), torch.tensor(after)
    assert share_apart(after, before) == share
    assert share_apart({"a": (after,)}, {"a": (before,)}) == share


class Loss:
    """A mean that differs by a share from call to call, and is written to a tensor of a dtype if one is given."""

    def __init__(self, share, inner=None):
        self.share, self.calls = share, 0
        self.kept = None if inner is None else torch.zeros((), dtype=inner)

    def __call__(self, outputs, _):
        self.calls += 1
        mean = outputs.mean() if self.kept is None else self.kept.copy_(outputs.mean()).clone()
        return mean * (1 + self.share * (self.calls % 2))


@pytest.mark.parametrize(("share", "inner"), [(1e-6, None), (1e-3, None), (1e-3, torch.float32)])
def test_a_loss_that_changes_is_refused(share, inner):
    with pytest.raises(ValueError, match="the loss of the same outputs is"):
        check_that_it_repeats(Loss(share, inner), torch.ones(5), torch.ones(5))


def test_a_loss_in_float32_alone_may_differ_by_the_order_of_its_sums():
    check_that_it_repeats(Loss(1e-5, torch.float32), torch.ones(5), torch.ones(5))


def test_a_loss_whose_sums_have_no_fixed_order_is_not_refused():
    def loss(outputs, _):
        return sum(outputs[random.SystemRandom().sample(range(len(outputs)), len(outputs))])

    outputs = torch.linspace(-1, 1.01, 400)
    values = {loss(outputs, None).item() for _ in range(5)}
    assert len(values) > 1
    check_that_it_repeats(loss, outputs, outputs)
