"""Two runs of one computation that differ: float64 decides, and a limit where it cannot be had."""

import pytest
import torch

from landscape.loss.checks import changed
from landscape.loss.loss_checks import check_that_it_repeats

VERDICTS = {
    # dtype, relative difference, verdict of float64 -> whether the outputs changed
    "equal": (torch.float32, 0.0, True, False),
    "float64 sees a change": (torch.float32, 1e-6, True, True),
    "float64 sees none": (torch.float32, 1e-6, False, False),
    "float64 sees none of a large one": (torch.float32, 1e-3, False, False),
    "small, no float64": (torch.float32, 5e-5, None, False),
    "large, no float64": (torch.float32, 2e-4, None, True),
    "double, float64 sees a change": (torch.float64, 1e-6, True, True),
    "half, float64 sees a change": (torch.bfloat16, 0.01, True, True),
    "half, float64 sees none of a large one": (torch.bfloat16, 0.1, False, False),
    "half, small, no float64": (torch.bfloat16, 0.01, None, False),
    "half, large, no float64": (torch.bfloat16, 0.1, None, True),
}


@pytest.mark.parametrize(("dtype", "share", "verdict", "expected"), VERDICTS.values(), ids=VERDICTS)
def test_where_two_runs_differ_float64_decides_and_a_limit_without_it(dtype, share, verdict, expected):
    outputs = torch.ones(5, dtype=dtype)
    again = (outputs.double() * (1 + share)).to(dtype)
    assert changed(again, outputs, lambda: verdict, lambda: False) == expected


def test_a_small_change_of_a_model_that_keeps_state_is_left_to_the_check_of_that_state():
    outputs = torch.ones(5)
    assert not changed(outputs * (1 + 1e-5), outputs, lambda: True, lambda: True)


class Loss:
    """A mean that differs by a share from call to call, and computes in a dtype of its own if one is given."""

    def __init__(self, share, inner=None):
        self.share, self.inner, self.calls = share, inner, 0

    def __call__(self, outputs, _):
        self.calls += 1
        return outputs.to(self.inner or outputs.dtype).mean() * (1 + self.share * (self.calls % 2))


@pytest.mark.parametrize(("share", "inner"), [(1e-6, None), (1e-3, None), (1e-3, torch.float32)])
def test_a_loss_that_changes_is_refused(share, inner):
    with pytest.raises(ValueError, match="the loss of the same outputs is"):
        check_that_it_repeats(Loss(share, inner), torch.ones(5), torch.ones(5))


def test_a_loss_in_float32_alone_may_differ_by_the_order_of_its_sums():
    check_that_it_repeats(Loss(1e-5, torch.float32), torch.ones(5), torch.ones(5))


def test_a_loss_whose_sums_have_no_fixed_order_is_not_refused():
    torch.manual_seed(0)

    def loss(outputs, _):
        return sum(outputs[torch.randperm(len(outputs), device="cpu")])

    outputs = torch.linspace(-1, 1.01, 400)
    values = {loss(outputs, None).item() for _ in range(5)}
    assert len(values) > 1
    check_that_it_repeats(loss, outputs, outputs)
