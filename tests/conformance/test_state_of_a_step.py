"""What a model or a loss keeps from pass to pass moves once a step, and each pass of a step computes the same loss.

The truth of the state is one ordinary pass. The truth of the gradient is SAM's formula, each of whose two gradients is
taken on a fresh copy of model and loss.
"""

import copy
import itertools
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from ncsam import NCSAM, SAM, CleanSAM, ClusterNCSAM, OneSAM, OracleSAM, Plain
from tests.ncsam.methods_like_sam import LIKE_SAM

RHO = 0.5
INPUTS = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(16) % 3
NOISE = {"flip_ratio": 0.5, "strength": 0.5, "warmup": 0.0}
METHODS = {
    "plain": Plain,
    **{name: partial(kind, rho=RHO) for name, kind in LIKE_SAM.items()},
    "oracle": partial(OracleSAM, rho=RHO, clean_targets=TARGETS),
    "clean": partial(CleanSAM, rho=RHO, clean_targets=TARGETS),
    "ncsam": partial(NCSAM, rho=RHO, **NOISE),
    "cluster-ncsam": partial(ClusterNCSAM, rho=RHO, **NOISE),
}


def trained():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


class Network(nn.Module):
    """A network with a part that keeps something: `kept()` is what it keeps, as numbers."""

    def __init__(self):
        super().__init__()
        self.net = trained()

    def kept(self):
        return []


class MomentumEncoder(Network):
    """As in MoCo and BYOL: the weights of a frozen encoder follow those of the trained one."""

    by_data = False

    def __init__(self):
        super().__init__()
        self.slow = copy.deepcopy(self.net).requires_grad_(False)
        self.slow[0].weight.mul_(2)

    def forward(self, x):
        with torch.no_grad():
            for fast, slow in zip(self.net.parameters(), self.slow.parameters(), strict=True):
                if self.by_data:
                    slow.data = 0.9 * slow.data + 0.1 * fast.data
                else:
                    slow.mul_(0.9).add_(0.1 * fast)
        return self.net(x) + self.slow(x).detach()

    def kept(self):
        return list(self.slow.parameters())


class MomentumByData(MomentumEncoder):
    by_data = True


class HiddenTeacher(MomentumEncoder):
    """The slow network is no registered part, and its parameters require a gradient."""

    def __init__(self):
        super().__init__()
        slow = self.slow.requires_grad_()
        del self.slow
        self.__dict__["slow"] = slow


class HiddenState(Network):
    def __init__(self):
        super().__init__()
        self.state = None

    def forward(self, x):
        x = x if self.state is None else x + self.state
        self.state = torch.tanh(self.net[0](x)).detach().mean(0)[:5]
        return self.net(x)

    def kept(self):
        return [self.state]


class WrittenState(Network):
    """The attribute stays the same tensor, and is written to."""

    def __init__(self):
        super().__init__()
        self.state = torch.zeros(5)

    def forward(self, x):
        x = x + self.state
        self.state.mul_(0.9).add_(0.1 * torch.tanh(self.net[0](x)).detach().mean(0)[:5])
        return self.net(x)

    def kept(self):
        return [self.state]


class Queue(Network):
    """A queue in a buffer, and the next place as a number."""

    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.zeros(4, 3))
        self.place = 0

    def forward(self, x):
        out = self.net(x) + self.queue.clone().sum(0)
        self.queue[self.place] = out.detach().mean(0)
        self.place = (self.place + 1) % 4
        return out

    def kept(self):
        return [self.queue, self.place]


class Containers(Network):
    def __init__(self):
        super().__init__()
        self.seen, self.sums, self.last = [], {"sum": torch.zeros(3)}, deque(maxlen=2)
        self.table, self.names = np.zeros(3), set()

    def forward(self, x):
        out = self.net(x) + self.sums["sum"] + len(self.seen) + torch.from_numpy(self.table).float()
        mean = out.detach().mean(0)
        self.seen.append(len(x))
        self.sums["sum"] = self.sums["sum"] + mean
        self.last.append(float(mean[0]))
        self.table += mean.numpy()
        self.names.add(len(self.names))
        return out

    def kept(self):
        return [
            len(self.seen),
            self.sums["sum"],
            sum(self.last),
            torch.from_numpy(self.table),
            len(self.names),
        ]


class PowerIteration(Network):
    """An old-style spectral norm, whose weight is an attribute that each pass makes anew."""

    def __init__(self):
        super().__init__()
        self.net[2] = nn.utils.spectral_norm(self.net[2])

    def forward(self, x):
        return self.net(x)

    def kept(self):
        return list(self.buffers())


class Stateless(Network):
    def forward(self, x):
        return self.net(x)


class RunningScale(nn.Module):
    """A loss that divides by its running mean."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(()))

    def forward(self, outputs, targets):
        loss = nn.functional.cross_entropy(outputs, targets)
        self.mean.mul_(0.9).add_(0.1 * loss.detach())
        return loss / self.mean

    def kept(self):
        return [self.mean]


class RunningScaleOfAnObject:
    def __init__(self):
        self.mean = 1.0

    def __call__(self, outputs, targets):
        loss = nn.functional.cross_entropy(outputs, targets)
        self.mean = 0.9 * self.mean + 0.1 * loss.item()
        return loss / self.mean

    def kept(self):
        return [self.mean]


class CrossEntropy(nn.CrossEntropyLoss):
    def kept(self):
        return []


KINDS = {
    "momentum encoder": (MomentumEncoder, CrossEntropy),
    "momentum encoder by .data": (MomentumByData, CrossEntropy),
    "hidden teacher": (HiddenTeacher, CrossEntropy),
    "hidden state": (HiddenState, CrossEntropy),
    "written state": (WrittenState, CrossEntropy),
    "queue": (Queue, CrossEntropy),
    "containers": (Containers, CrossEntropy),
    "old spectral norm": (PowerIteration, CrossEntropy),
    "loss with a running mean": (Stateless, RunningScale),
    "loss of an own class": (Stateless, RunningScaleOfAnObject),
}


def kept(*parts):
    return [torch.as_tensor(value).detach().double() for part in parts for value in part.kept()]


def after_one_pass(model, loss_fn):
    model, loss_fn = copy.deepcopy((model, loss_fn))
    loss_fn(model(INPUTS), TARGETS)
    return kept(model, loss_fn)


def gradient_on_a_copy(model, loss_fn, perturbation=None):
    model, loss_fn = copy.deepcopy((model, loss_fn))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight, moved in zip(weights, perturbation or [], strict=False):
        weight.data += moved
    return torch.autograd.grad(loss_fn(model(INPUTS), TARGETS), weights)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_state_moves_once_a_step(name, kind):
    model, loss_fn = (part() for part in KINDS[kind])
    right = after_one_pass(model, loss_fn)
    method = METHODS[name](model, loss_fn)
    method.progress = 0.5
    method.backward(INPUTS, TARGETS, torch.arange(16))
    torch.testing.assert_close(kept(model, loss_fn), right)


@pytest.mark.parametrize("kind", KINDS)
def test_both_gradients_of_sam_are_those_of_one_function(kind):
    model, loss_fn = (part() for part in KINDS[kind])
    SAM(model, loss_fn, rho=RHO).backward(INPUTS, TARGETS)
    model.zero_grad()
    fresh = copy.deepcopy((model, loss_fn)) if kind != "old spectral norm" else None
    if fresh is None:
        pytest.skip("torch cannot copy this module once it has run")
    g = gradient_on_a_copy(*fresh)
    length = torch.sqrt(sum(part.square().sum() for part in g))
    right = gradient_on_a_copy(*fresh, [RHO * part / length for part in g])
    SAM(model, loss_fn, rho=RHO).backward(INPUTS, TARGETS)
    found = [weight.grad for weight in model.parameters() if weight.requires_grad]
    torch.testing.assert_close(found, list(right))


@pytest.mark.parametrize("way", ["closure", "forward", "loss"])
def test_a_head_outside_the_model_moves_once_a_step(way):
    model, head = nn.Linear(5, 6), nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))
    once = copy.deepcopy(head)
    once(model(INPUTS))
    loss_fn = nn.CrossEntropyLoss()
    if way == "closure":
        SAM(model, loss_fn, rho=RHO).backward(closure=lambda: loss_fn(head(model(INPUTS)), TARGETS))
    elif way == "forward":
        SAM(model, loss_fn, rho=RHO, forward=lambda m, x: head(m(x))).backward(INPUTS, TARGETS)
    else:
        SAM(model, lambda outputs, targets: loss_fn(head(outputs), targets), rho=RHO).backward(
            INPUTS, TARGETS
        )
    torch.testing.assert_close(head[0].running_mean, once[0].running_mean)
    assert head[0].num_batches_tracked == 1


def test_a_large_frozen_part_that_moves_is_refused_and_one_that_stays_is_not():
    """To keep it aside in each step would take more memory than the training."""
    model = MomentumEncoder()
    model.net = nn.Linear(5, 3)
    model.slow = nn.Sequential(nn.Linear(5, 1 << 17), nn.Linear(1 << 17, 3)).requires_grad_(False)
    moving = copy.deepcopy(model)
    model.forward = lambda x: model.net(x) + model.slow(x)
    SAM(model, CrossEntropy(), rho=RHO).backward(INPUTS, TARGETS)

    def forward(x):
        moving.slow[0].weight.mul_(0.9)
        return moving.net(x) + moving.slow(x)

    moving.forward = forward
    with pytest.raises(ValueError, match=r"\(131072, 5\).*register_buffer"):
        SAM(moving, CrossEntropy(), rho=RHO).backward(INPUTS, TARGETS)


@pytest.mark.parametrize("kind", ["momentum encoder", "hidden state", "queue", "loss with a running mean"])
def test_one_sam_refuses_state(kind):
    model, loss_fn = (part() for part in KINDS[kind])
    before = kept(model, loss_fn) if kind != "hidden state" else None
    with pytest.raises(ValueError, match="1-SAM .* take SAM"):
        OneSAM(model, loss_fn, rho=RHO).backward(INPUTS, TARGETS)
    if before is not None:
        torch.testing.assert_close(kept(model, loss_fn), before)


def test_an_error_in_a_pass_leaves_the_state_of_the_pass_at_w():
    model = HiddenState()
    right = after_one_pass(model, CrossEntropy())
    calls = itertools.count()

    def fails_at_last(outputs, targets):
        # what an iterator keeps is not put back
        if next(calls) == 1:
            raise KeyError("no second time")
        return nn.functional.cross_entropy(outputs, targets)

    with pytest.raises(KeyError):
        SAM(model, fails_at_last, rho=RHO).backward(INPUTS, TARGETS)
    torch.testing.assert_close(kept(model), right)
