"""What no pass moves costs a step no copies, and what passes only write down does not keep 1-SAM from a model."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from ncsam import SAM, OneSAM
from ncsam.methods.moving_tensors import LARGE

INPUTS = torch.randn(8, 1, 20, 20, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(8) % 3
LOSS = nn.CrossEntropyLoss()


class Written(nn.Module):
    """Writes down what depends on its sample alone."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(400, 3))
        self.size = None

    def forward(self, x):
        self.size, self.in_shape = x.shape[-1] * x.shape[-2], x.shape
        self.feature = self.net(x)
        return self.feature


class Remembers(Written):
    """Scales by what it kept of the sample before."""

    last = None

    def forward(self, x):
        outputs = self.net(x) if self.last is None else self.net(x) * (1 + self.last)
        self.last = x.detach().mean()
        return outputs


class OldWeightNorm(Written):
    def __init__(self):
        super().__init__()
        self.net[1] = nn.utils.weight_norm(self.net[1])


class Pruned(Written):
    def __init__(self):
        super().__init__()
        prune.l1_unstructured(self.net[1], "weight", amount=0.3)


class NotANumber(Written):
    def __init__(self):
        super().__init__()
        self.register_buffer("unset", torch.full((3,), float("nan")))
        self.none_yet = float("nan")


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("kind", [Written, OldWeightNorm, Pruned, NotANumber])
def test_one_sam_takes_a_model_that_writes_down_what_depends_on_its_sample(kind):
    model = kind()
    method = OneSAM(model, LOSS, rho=0.05)
    for _ in range(2):
        loss = method.backward(INPUTS, TARGETS)
    torch.testing.assert_close(loss, LOSS(model(INPUTS), TARGETS).detach())


def test_one_sam_refuses_a_model_that_reads_the_sample_before():
    with pytest.raises(ValueError, match="1-SAM takes the samples apart"):
        OneSAM(Remembers(), LOSS, rho=0.05).backward(INPUTS, TARGETS)


class Frozen(nn.Module):
    """A large frozen part and a large buffer beside a trained part; the frozen one may follow."""

    follows = False

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(400, 3)
        self.slow = nn.Linear(400, 2 * LARGE // 400).requires_grad_(False)
        self.register_buffer("bank", torch.randn(LARGE))

    def forward(self, x):
        x = x.flatten(1)
        if self.follows:
            with torch.no_grad():
                self.slow.weight.mul_(0.9)
        return self.net(x) + self.slow(x).mean() + self.bank[:3]


@pytest.fixture
def clones(monkeypatch):
    """Counts the clones of large tensors."""
    found = []
    clone = torch.Tensor.clone

    def counted(tensor, *args, **kwargs):
        if tensor.numel() >= LARGE:
            found.append(tuple(tensor.shape))
        return clone(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "clone", counted)
    return found


def test_large_tensors_that_stay_are_copied_in_the_first_step_alone(clones):
    method = SAM(Frozen(), LOSS, rho=0.05)
    method.backward(INPUTS, TARGETS)
    assert len(clones) == 2
    method.backward(INPUTS, TARGETS)
    method.backward(INPUTS, TARGETS)
    assert len(clones) == 2


def test_of_large_tensors_only_those_that_move_are_copied_in_later_steps(clones):
    model = Frozen()
    model.follows = True
    method = SAM(model, LOSS, rho=0.05)
    start = model.slow.weight.detach() * 1
    method.backward(INPUTS, TARGETS)
    clones.clear()
    method.backward(INPUTS, TARGETS)
    assert set(clones) == {tuple(model.slow.weight.shape)}
    torch.testing.assert_close(model.slow.weight.detach(), start * 0.9**2)


def test_a_large_part_that_begins_to_move_later_moves_once_a_step():
    model = Frozen()
    method = SAM(model, LOSS, rho=0.05)
    start = model.slow.weight.detach().clone()
    method.backward(INPUTS, TARGETS)
    model.follows = True
    method.backward(INPUTS, TARGETS)
    method.backward(INPUTS, TARGETS)
    torch.testing.assert_close(model.slow.weight.detach(), start * 0.9**2)
    copy.deepcopy(method).backward(INPUTS, TARGETS)


class Trainer:
    """Holds networks, of which its loss runs one."""

    def __init__(self):
        self.model = nn.Linear(400, 6)
        self.head = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))
        self.teacher = nn.Linear(400, 2 * LARGE // 400).requires_grad_(False)

    def outputs_of_head(self, outputs):
        return self.head(outputs)

    def loss(self, outputs, targets):
        return LOSS(self.outputs_of_head(outputs), targets)


def test_of_a_trainer_only_the_networks_that_its_loss_names_are_kept(clones):
    trainer = Trainer()
    SAM(trainer.model, trainer.loss, rho=0.05).backward(INPUTS.flatten(1), TARGETS)
    assert trainer.head[0].num_batches_tracked == 1
    assert clones == []
