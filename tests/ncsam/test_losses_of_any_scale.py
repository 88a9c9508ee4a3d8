"""A loss times any factor: perturbations are those of the loss itself, and gradients are its own times the factor.

The truth is each method's formula, written out in float64 for the loss without the factor. The methods compute in
float32, where squares of a gradient of 1e-23 are 0, and those of 1e20 infinite.
"""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from ncsam import (
    ASAM,
    BSAM,
    GSAM,
    NCSAM,
    SAM,
    SANER,
    WSAM,
    FriendlySAM,
    JacobianSAM,
    LogitSAM,
    LookSAM,
    OneSAM,
    OracleSAM,
    Split,
    fit,
    human_labels,
)

RHO = 0.3
INPUTS = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
TARGETS = torch.arange(40) % 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


class InFloat64:
    """Gradients of the mean loss at w + vector, as one vector, apart from the methods."""

    def __init__(self):
        self.model = network().double()
        self.names = [name for name, _ in self.model.named_parameters()]
        self.w = self.flat(self.model.parameters())
        self.g = self.at(torch.zeros_like(self.w))

    def flat(self, tensors):
        return torch.cat([tensor.detach().flatten() for tensor in tensors])

    def outputs(self, vector, inputs=INPUTS):
        sizes = [parameter.numel() for parameter in self.model.parameters()]
        parts = [
            part.view_as(parameter)
            for part, parameter in zip(vector.split(sizes), self.model.parameters(), strict=True)
        ]
        return functional_call(self.model, dict(zip(self.names, parts, strict=True)), (inputs.double(),))

    def at(self, vector, rows=slice(None), targets=TARGETS):
        weights = (self.w + vector).requires_grad_()
        loss = nn.functional.cross_entropy(self.outputs(weights, INPUTS[rows]), targets[rows])
        return torch.autograd.grad(loss, weights)[0]

    def pulled_back(self, of_jacobian, of_loss):
        weights = (self.w + of_jacobian).requires_grad_()
        slopes = self.outputs(self.w + of_loss).softmax(1) - nn.functional.one_hot(TARGETS, 3)
        return torch.autograd.grad((self.outputs(weights) * slopes).sum() / len(TARGETS), weights)[0]


def to_rho(vector):
    return RHO * vector / vector.norm()


def sam(true):
    return true.at(to_rho(true.g))


def asam(true):
    scales = [
        p.detach().abs() + 0.01 if "weight" in name else torch.ones_like(p)
        for name, p in true.model.named_parameters()
    ]
    t = true.flat(scales)
    return true.at(RHO * t**2 * true.g / (t * true.g).norm())


def gsam(true):
    s = sam(true)
    return s - 0.4 * (true.g - (true.g @ s) / (s @ s) * s)


def bsam(true):
    uphill, downhill = true.at(to_rho(true.g)), true.at(-to_rho(true.g))
    return uphill + true.g - uphill.norm() / downhill.norm() * downhill


def saner(true):
    s = sam(true)
    ratio = s / true.g
    return torch.where((ratio > 0) & (ratio < 1), 0.5 * s, s)


def look_sam(true):
    """The second of two steps at the same weights."""
    s = sam(true)
    kept = s - (true.g @ s) / (true.g @ true.g) * true.g
    return true.g + 0.7 * true.g.norm() / kept.norm() * kept


def wsam(true):
    return true.g + 9 * (sam(true) - true.g)


def friendly_sam(true):
    """The second of two steps on the same batch, whose average is the gradient itself."""
    return true.at(to_rho(true.g - 0.5 * true.g))


def ncsam(true):
    """All samples get the label that their prediction puts next to their own."""
    scores = true.outputs(true.w).scatter(1, TARGETS[:, None], -torch.inf)
    shifted = to_rho(true.g) + 0.5 * true.at(torch.zeros_like(true.w), targets=scores.argmax(1))
    return true.at(shifted if shifted.norm() <= RHO else to_rho(shifted))


def one_sam(true):
    rows = [slice(i, i + 1) for i in range(len(TARGETS))]
    at_w = [true.at(torch.zeros_like(true.w), row) for row in rows]
    return torch.stack([true.at(to_rho(g), row) for g, row in zip(at_w, rows, strict=True)]).mean(0)


METHODS = {
    "sam": (SAM, {}, sam),
    "asam": (ASAM, {}, asam),
    "gsam": (GSAM, {}, gsam),
    "bsam": (BSAM, {}, bsam),
    "saner": (SANER, {}, saner),
    "looksam": (LookSAM, {}, look_sam),
    "wsam": (WSAM, {}, wsam),
    "friendly-sam": (FriendlySAM, {"sigma": 0.5}, friendly_sam),
    "oracle": (OracleSAM, {"clean_targets": TARGETS}, sam),
    "ncsam": (NCSAM, {"flip_ratio": 1.0, "schedule": "constant", "warmup": 0.0}, ncsam),
    "1-sam": (OneSAM, {}, one_sam),
    "j-sam": (JacobianSAM, {}, lambda true: true.pulled_back(to_rho(true.g), torch.zeros_like(true.w))),
    "l-sam": (LogitSAM, {}, lambda true: true.pulled_back(torch.zeros_like(true.w), to_rho(true.g))),
}
TAKES_TWO_STEPS = ("looksam", "friendly-sam")


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_of_a_scaled_loss_is_that_of_the_loss_times_the_factor(name, scale):
    method_type, options, truth = METHODS[name]
    if name == "ncsam":
        # kappa is in weight units per gradient unit
        options = {**options, "strength": 0.5 / scale}
    model = network()
    method = method_type(model, lambda o, t: nn.functional.cross_entropy(o, t) * scale, rho=RHO, **options)
    method.progress = 0.5
    if name in TAKES_TWO_STEPS:
        method.backward(INPUTS, TARGETS, torch.arange(40))
        model.zero_grad()
    method.backward(INPUTS, TARGETS, torch.arange(40))
    found = torch.cat([p.grad.double().flatten() for p in model.parameters()]) / scale
    right = truth(InFloat64())
    assert (found - right).norm() <= 1e-5 * right.norm()


@pytest.mark.parametrize("scale", [1e-22, 1.0, 1e20])
def test_a_gradient_is_clipped_to_its_largest_norm_at_any_scale(scale):
    model = network()
    before = copy.deepcopy(model)
    fit(
        SAM(model, lambda o, t: nn.functional.cross_entropy(o, t) * scale, rho=RHO),
        torch.optim.SGD(model.parameters(), lr=1 / scale),
        Split(INPUTS, TARGETS),
        human_labels(TARGETS, TARGETS),
        Split(INPUTS, TARGETS),
        epochs=1,
        batch_size=40,
        seed=0,
        max_gradient_norm=1e-3 * scale,
    )
    moved = torch.cat(
        [(a - b).flatten() for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    )
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)
