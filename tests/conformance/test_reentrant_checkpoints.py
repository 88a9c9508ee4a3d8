"""Reentrant checkpoints give gradients to `backward` alone: methods of several gradients refuse them."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from ncsam import NCSAM, FisherPenalty, JacobianPenalty, OneSAM, Plain
from tests.ncsam.methods_like_sam import LIKE_SAM

INPUTS = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(16) % 3
SAM_LIKE = {"rho": 0.3}
PENALTY = {"seed": 0, "strength": 0.1}
OF_SEVERAL_GRADIENTS = {
    **{name: (kind, SAM_LIKE) for name, kind in {**LIKE_SAM, "1-sam": OneSAM}.items()},
    "ncsam": (NCSAM, {**SAM_LIKE, "flip_ratio": 0.4, "strength": 0.2, "warmup": 0.0}),
    "fisher": (FisherPenalty, PENALTY),
    "jacobian": (JacobianPenalty, PENALTY),
}


class OwnCheckpoint(torch.autograd.Function):
    """A checkpoint of another package, which torch does not know as one."""

    @staticmethod
    def forward(ctx, block, x):
        ctx.block, ctx.x = block, x
        return block(x.detach())

    @staticmethod
    def backward(ctx, slopes):
        x = ctx.x.detach().requires_grad_()
        with torch.enable_grad():
            outputs = ctx.block(x)
        torch.autograd.backward(outputs, slopes)
        return None, x.grad


class Doubled(torch.autograd.Function):
    """A formula of one's own, whose backward is no pass."""

    @staticmethod
    def forward(ctx, x):
        ctx.factor = 2
        return ctx.factor * x

    @staticmethod
    def backward(ctx, slopes):
        return ctx.factor * slopes


FORMS = {
    "no checkpoint": lambda block, z: block(z),
    "a checkpoint": lambda block, z: checkpoint(block, z, use_reentrant=True),
    "a checkpoint of a sequence": lambda block, z: checkpoint_sequential(block, 2, z, use_reentrant=True),
    "another package's checkpoint": OwnCheckpoint.apply,
    "not reentrant": lambda block, z: checkpoint(block, z, use_reentrant=False),
    "a formula of one's own": lambda block, z: block(Doubled.apply(z)),
}
REENTRANT = ("a checkpoint", "a checkpoint of a sequence", "another package's checkpoint")


class Adapted(nn.Module):
    """A frozen embedding whose output requires a gradient, as that of adapters does, a block and a head."""

    def __init__(self, form, unused=False):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Linear(5, 4).requires_grad_(False)
        self.block = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))
        self.head = nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2) if unused else None
        self.form = form

    def forward(self, x):
        return self.head(FORMS[self.form](self.block, self.embedding(x).requires_grad_()))


def step(kind, options, model):
    method = kind(model, nn.CrossEntropyLoss(), **options)
    method.progress = 0.5
    method.backward(INPUTS, TARGETS)
    return [weight.grad for weight in model.parameters()]


@pytest.mark.parametrize("form", REENTRANT)
@pytest.mark.parametrize("name", OF_SEVERAL_GRADIENTS)
def test_a_reentrant_checkpoint_with_no_trainable_weight_before_it_is_refused(name, form):
    with pytest.raises(ValueError, match="^model: its checkpoints must be called with use_reentrant=False"):
        step(*OF_SEVERAL_GRADIENTS[name], Adapted(form))


@pytest.mark.parametrize("form", REENTRANT)
def test_an_ordinary_step_is_right_with_reentrant_checkpoints(form):
    for found, right in zip(
        step(Plain, {}, Adapted(form)), step(Plain, {}, Adapted("no checkpoint")), strict=True
    ):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("form", ["not reentrant", "a formula of one's own"])
def test_unused_weights_beside_other_parts_of_a_graph_are_taken(form):
    """Their gradient is missing too."""
    step(*OF_SEVERAL_GRADIENTS["sam"], Adapted(form, unused=True))


@pytest.mark.parametrize("form", REENTRANT[:2])
def test_a_head_on_a_frozen_body_with_reentrant_checkpoints_is_trained(form):
    of_forms = []
    for each in (form, "no checkpoint"):
        model = Adapted(each)
        model.block.requires_grad_(False)
        step(*OF_SEVERAL_GRADIENTS["sam"], model)
        of_forms.append([weight.grad for weight in model.head.parameters()])
    for found, right in zip(*of_forms, strict=True):
        torch.testing.assert_close(found, right)


class Tied(Adapted):
    """The block stands in the form, and its layers outside of the form too."""

    def forward(self, x):
        z = self.embedding(x).requires_grad_()
        return self.head(FORMS[self.form](self.block, z) + self.block(self.embedding(x)))


@pytest.mark.parametrize("form", REENTRANT)
@pytest.mark.parametrize("name", OF_SEVERAL_GRADIENTS)
def test_a_reentrant_checkpoint_whose_weights_are_used_elsewhere_too_is_refused(name, form):
    with pytest.raises(ValueError, match="^model: its checkpoints must be called with use_reentrant=False"):
        step(*OF_SEVERAL_GRADIENTS[name], Tied(form))


def test_reentrant_checkpoints_that_are_switched_on_in_the_middle_are_refused_soon():
    model = Tied("not reentrant")
    method = OF_SEVERAL_GRADIENTS["sam"][0](model, nn.CrossEntropyLoss(), rho=0.3)
    for _ in range(3):
        method.backward(INPUTS, TARGETS)
    model.form = "a checkpoint"
    with pytest.raises(ValueError, match="use_reentrant=False"):
        method.backward(INPUTS, TARGETS)
