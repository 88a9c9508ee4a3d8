"""Weights in half precision round a perturbation away; the first step that loses more than a tenth of it says so."""

import warnings

import pytest
import torch
from torch import nn

from ncsam import SAM
from tests.ncsam.methods_like_sam import LIKE_SAM

INPUTS = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(16) % 3


def network(dtype):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 3)).to(dtype)


def step(method):
    method.backward(INPUTS.to(next(method.parameters()).dtype), TARGETS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LIKE_SAM)
def test_a_perturbation_that_rounds_away_is_told_once(name, dtype):
    method = LIKE_SAM[name](network(dtype), nn.CrossEntropyLoss(), rho=1e-4)
    with pytest.warns(
        UserWarning, match=r"^model: has weights in b?float16, .* by \d+% of its norm; keep .*16$"
    ):
        step(method)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(method)


def test_the_share_that_is_lost_is_that_of_the_weights():
    """All of a perturbation that is smaller than half of the last place is lost."""
    model = nn.Linear(5, 3, bias=False)
    nn.init.ones_(model.weight)
    method = SAM(model.bfloat16(), nn.CrossEntropyLoss(), rho=1e-3)
    with pytest.warns(UserWarning, match="by 100% of its norm"):
        step(method)


@pytest.mark.parametrize(
    ("dtype", "rho"), [(torch.bfloat16, 1.0), (torch.float32, 1e-4), (torch.bfloat16, 0.0)]
)
def test_a_perturbation_that_is_added_is_not_told(dtype, rho):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(SAM(network(dtype), nn.CrossEntropyLoss(), rho=rho))
