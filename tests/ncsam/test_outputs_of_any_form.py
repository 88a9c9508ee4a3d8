"""A model may return several outputs: the loss gets what the model returns."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ncsam import NCSAM, SAM, JacobianSAM
from tests.ncsam.methods_like_sam import LIKE_SAM

INPUTS = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(12) % 3


class Named(NamedTuple):
    scores: torch.Tensor
    size: torch.Tensor


@dataclass
class Opaque:
    """Torch finds no tensors in it."""

    scores: torch.Tensor
    size: torch.Tensor


FORMS = {
    "tuple": lambda scores, size: (scores, size),
    "named tuple": Named,
    "dict": lambda scores, size: {"scores": scores, "size": size},
    "dataclass": Opaque,
}


class TwoHeads(nn.Module):
    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.head, self.other = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 1)
        self.double()
        self.form = form

    def forward(self, inputs):
        hidden = torch.tanh(self.trunk(inputs))
        return self.form(self.head(hidden), self.other(hidden))


def loss_of(outputs, targets):
    parts = {
        tuple: lambda: outputs,
        Named: lambda: outputs,
        dict: lambda: outputs.values(),
        Opaque: lambda: (outputs.scores, outputs.size),
    }[type(outputs)]()
    scores, size = parts
    return cross_entropy(scores, targets) + size.square().mean()


def gradients(method):
    method.backward(INPUTS, TARGETS)
    return {name: parameter.grad for name, parameter in method.model.named_parameters()}


def by_hand(model, rho):
    weights = list(model.parameters())
    gradient = torch.autograd.grad(loss_of(model(INPUTS), TARGETS), weights)
    length = torch.stack([part.square().sum() for part in gradient]).sum().sqrt()
    with torch.no_grad():
        for weight, part in zip(weights, gradient, strict=True):
            weight += rho * part / length
    return torch.autograd.grad(loss_of(model(INPUTS), TARGETS), weights)


@pytest.mark.parametrize("form", FORMS)
def test_sam_is_two_gradients_by_hand(form):
    found = gradients(SAM(TwoHeads(FORMS[form]), loss_of, rho=0.2))
    for one, other in zip(found.values(), by_hand(TwoHeads(FORMS[form]), rho=0.2), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", [name for name in LIKE_SAM if name not in ("j-sam", "l-sam")])
def test_every_method_does_what_it_does_by_a_closure(name):
    model, other = TwoHeads(FORMS["dataclass"]), TwoHeads(FORMS["dataclass"])
    found = gradients(LIKE_SAM[name](model, loss_of, rho=0.2))
    LIKE_SAM[name](other, loss_of, rho=0.2).backward(closure=lambda: loss_of(other(INPUTS), TARGETS))
    for parameter, gradient in found.items():
        torch.testing.assert_close(gradient, other.get_parameter(parameter).grad)


@pytest.mark.parametrize("form", ["tuple", "named tuple", "dict"])
def test_micro_batches_have_the_gradient_of_the_batch(form):
    method = SAM(TwoHeads(FORMS[form]), loss_of, rho=0.2)
    method.passes.micro_batch_size = 5
    for one, other in zip(gradients(method).values(), by_hand(TwoHeads(FORMS[form]), 0.2), strict=True):
        torch.testing.assert_close(one, other)


def test_micro_batches_of_what_cannot_be_joined_need_a_count():
    method = SAM(TwoHeads(Opaque), loss_of, rho=0.2)
    method.passes.micro_batch_size = 5
    with pytest.raises(ValueError, match="model: returns Opaque.*give count="):
        method.backward(INPUTS, TARGETS)
    counted = SAM(TwoHeads(Opaque), loss_of, rho=0.2, count=lambda batch: len(batch[1]))
    counted.passes.micro_batch_size = 5
    for one, other in zip(gradients(counted).values(), by_hand(TwoHeads(Opaque), 0.2), strict=True):
        torch.testing.assert_close(one, other)


def test_a_sum_over_the_samples_is_no_mean_of_micro_batches():
    method = SAM(TwoHeads(FORMS["tuple"]), lambda out, y: 12 * loss_of(out, y) * len(y), rho=0.2)
    method.passes.micro_batch_size = 5
    with pytest.raises(ValueError, match="the loss is no mean over the samples"):
        method.backward(INPUTS, TARGETS)


def test_a_loss_that_does_not_take_them_names_the_remedy_which_works():
    with pytest.raises(ValueError, match=r"loss_fn: fails .* model's tuple as it is.*forward=lambda"):
        SAM(TwoHeads(FORMS["tuple"]), nn.CrossEntropyLoss(), rho=0.2).backward(INPUTS, TARGETS)
    picked = SAM(
        TwoHeads(FORMS["tuple"]),
        nn.CrossEntropyLoss(),
        rho=0.2,
        forward=lambda model, inputs: model(inputs)[0],
    )
    picked.backward(INPUTS, TARGETS)
    assert picked.model.head.weight.grad.norm() > 0


@pytest.mark.parametrize("make", [JacobianSAM, NCSAM])
def test_methods_that_need_scores_refuse_other_outputs(make):
    options = {"flip_ratio": 0.4, "strength": 0.1, "warmup": 0.0} if make is NCSAM else {}
    method = make(TwoHeads(FORMS["tuple"]), loss_of, rho=0.2, **options)
    method.progress = 0.5
    with pytest.raises(ValueError, match=r"model: .*(must return one tensor|needs outputs)"):
        method.backward(INPUTS, TARGETS)
