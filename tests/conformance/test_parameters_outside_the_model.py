"""Parameters outside the model, such as learned prototypes: each method fills their `.grad`, or refuses them."""

import copy

import pytest
import torch
from torch import nn

from ncsam import (
    ASAM,
    GSAM,
    NCSAM,
    SAM,
    ClusterNCSAM,
    FisherPenalty,
    FriendlySAM,
    JacobianPenalty,
    OracleSAM,
    Plain,
)
from tests.ncsam.methods_like_sam import WITH_ONE_SAM

RHO = 0.3
INPUTS = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(16) % 3
NOISE = {"rho": RHO, "flip_ratio": 0.4, "strength": 0.2, "warmup": 0.0}
LIKE_SAM = {
    "sam": (SAM, {"rho": RHO}),
    "friendly-sam": (FriendlySAM, {"rho": RHO}),
    "oracle": (OracleSAM, {"rho": RHO, "clean_targets": TARGETS}),
    "sam of rho 0": (GSAM, {"rho": 0.0}),
    "plain": (Plain, {}),
}
FILLING = {
    **LIKE_SAM,
    "asam": (ASAM, {"rho": RHO}),
    "ncsam": (NCSAM, NOISE),
    "cluster-ncsam": (ClusterNCSAM, NOISE),
    "fisher": (FisherPenalty, {"seed": 0, "strength": 0.1}),
    "jacobian": (JacobianPenalty, {"seed": 0, "strength": 0.1}),
}
COMBINING = {
    name: WITH_ONE_SAM[name]
    for name in ("gsam", "bsam", "saner", "looksam", "wsam", "j-sam", "l-sam", "1-sam")
}


def encoder():
    torch.manual_seed(0)
    return nn.Linear(5, 4)


class Prototypes(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.centers = nn.Parameter(torch.randn(4, 4))

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(outputs @ self.centers.T, targets)


def made(kind, model, loss_fn, **of_batch):
    method_type, options = kind
    method = method_type(model, loss_fn, **options, **of_batch)
    method.progress = 0.5
    return method


@pytest.mark.parametrize("name", FILLING)
def test_prototypes_of_the_loss_get_a_gradient(name):
    loss_fn = Prototypes()
    made(FILLING[name], encoder(), loss_fn).backward(INPUTS, TARGETS, torch.arange(16))
    assert loss_fn.centers.grad is not None
    assert loss_fn.centers.grad.norm() > 0


@pytest.mark.parametrize("name", LIKE_SAM)
def test_the_gradient_of_prototypes_is_that_of_the_second_pass(name):
    loss_fn, model = Prototypes(), encoder()
    twin, of_twin = copy.deepcopy(model), copy.deepcopy(loss_fn)
    made(LIKE_SAM[name], model, loss_fn).backward(INPUTS, TARGETS, torch.arange(16))
    if name not in ("plain", "sam of rho 0"):
        g = torch.autograd.grad(of_twin(twin(INPUTS), TARGETS), list(twin.parameters()))
        length = torch.sqrt(sum(part.square().sum() for part in g))
        with torch.no_grad():
            for weight, part in zip(twin.parameters(), g, strict=True):
                weight += RHO * part / length
    of_twin(twin(INPUTS), TARGETS).backward()
    torch.testing.assert_close(loss_fn.centers.grad, of_twin.centers.grad)


@pytest.mark.parametrize("name", COMBINING)
def test_methods_that_combine_gradients_of_the_model_refuse_prototypes(name):
    loss_fn = Prototypes()
    with pytest.raises(ValueError, match=r"^loss_fn: .*\(4, 4\) outside the model.*holds both"):
        COMBINING[name](encoder(), loss_fn, rho=RHO).backward(INPUTS, TARGETS)


@pytest.mark.parametrize("name", ["gsam", "bsam", "saner", "looksam", "wsam"])
@pytest.mark.parametrize("micro_batch_size", [None, 5])
def test_a_head_reached_by_a_closure_or_by_forward_is_refused(name, micro_batch_size):
    head, model = nn.Linear(4, 3), encoder()
    loss_fn = nn.CrossEntropyLoss()
    method = COMBINING[name](model, loss_fn, rho=RHO, forward=lambda m, inputs: head(m(inputs)))
    method.passes.micro_batch_size = micro_batch_size
    with pytest.raises(ValueError, match="outside the model"):
        method.backward(INPUTS, TARGETS)
    if micro_batch_size is None:
        with pytest.raises(ValueError, match="outside the model"):
            method.backward(closure=lambda: loss_fn(head(model(INPUTS)), TARGETS))


@pytest.mark.parametrize("name", COMBINING)
def test_the_remedies_train_what_was_left_out(name):
    """A module that holds both, and a frozen parameter."""
    both = nn.Sequential(encoder(), nn.Linear(4, 3, bias=False))
    COMBINING[name](both, nn.CrossEntropyLoss(), rho=RHO).backward(INPUTS, TARGETS)
    assert both[1].weight.grad.norm() > 0
    frozen = Prototypes().requires_grad_(False)
    COMBINING[name](encoder(), frozen, rho=RHO).backward(INPUTS, TARGETS)


@pytest.mark.parametrize("name", ["gsam", "bsam", "saner", "looksam", "wsam"])
def test_inputs_that_a_loss_is_differentiated_in_are_no_parameters(name):
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))

    def residual():
        places = INPUTS.clone().requires_grad_()
        (slopes,) = torch.autograd.grad(model(places).sum(), places, create_graph=True)
        return (slopes - 1).square().mean()

    COMBINING[name](model, nn.MSELoss(), rho=RHO).backward(closure=residual)
    assert model[0].weight.grad.norm() > 0
