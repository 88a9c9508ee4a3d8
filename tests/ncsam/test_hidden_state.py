"""A resumed training is the unbroken one, also where state is in no `state_dict`."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ncsam import CheckpointError, Plain, Split, corrupt_labels, fit

INPUTS = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(48) % 3
LABELS = corrupt_labels(TARGETS, kind="symmetric", rate=0.3, seed=0)


class Killed(Exception):
    pass


class RunningMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8), persistent=False)

    def forward(self, x):
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return x - self.mean


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += self.training
        return x * (1 + 0.1 * self.passes)


class PlainTensor(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(8)

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return x - self.mean


class OwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return x + 0.1 * torch.randn(x.shape, generator=self.generator) if self.training else x


class CounterOfTheFirstPass(nn.Module):
    def forward(self, x):
        if self.training:
            self.passes = getattr(self, "passes", 0) + 1
        return x * (1 + 0.1 * getattr(self, "passes", 0))


class GeneratorOfTheFirstPass(nn.Module):
    def forward(self, x):
        if not hasattr(self, "generator"):
            self.generator = torch.Generator().manual_seed(0)
        return x + 0.1 * torch.randn(x.shape, generator=self.generator) if self.training else x


class ArrayOfCounts(nn.Module):
    def __init__(self):
        super().__init__()
        self.counts = np.zeros(2)

    def forward(self, x):
        self.counts[0] += self.training
        return x * (1 + 0.1 * float(self.counts[0]))


class ExtraStateOfNumPy(Counter):
    def get_extra_state(self):
        return {"passes": np.float64(self.passes), "table": np.arange(3)}

    def set_extra_state(self, state):
        self.passes = state["passes"]


class Log(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []
        self.last = {"size": 0}

    def forward(self, x):
        self.seen.append(len(x))
        return x


class Last(Log):
    def forward(self, x):
        self.last["size"] += 1
        return x


class SmoothingMore:
    """A loss that is no module, with a counter."""

    def __init__(self):
        self.calls = 0

    def __call__(self, scores, targets):
        self.calls += 1
        return nn.functional.cross_entropy(scores, targets, label_smoothing=min(0.5, 0.01 * self.calls))


def sgd(parameters, **options):
    return torch.optim.SGD(parameters, **{"lr": 0.1, **options})


def trained(path, *, front=nn.Identity, loss=nn.CrossEntropyLoss, make=sgd, schedule=None, killed_after=None):
    torch.manual_seed(0)
    model = nn.Sequential(front(), nn.Linear(8, 3))
    optimizer = make(model.parameters())
    scheduler = None if schedule is None else schedule(optimizer)

    def on_epoch(epoch, *_):
        if epoch == killed_after:
            raise Killed

    how = {"epochs": 3, "batch_size": 16, "seed": 0, "checkpoint": path, "on_epoch": on_epoch}
    data = Split(INPUTS, TARGETS)
    fit(Plain(model, loss()), optimizer, data, LABELS, data, scheduler=scheduler, **how)
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize(
    "parts",
    [
        *({"front": front} for front in (RunningMean, Counter, PlainTensor, OwnGenerator, ExtraStateOfNumPy)),
        *({"front": front} for front in (CounterOfTheFirstPass, GeneratorOfTheFirstPass, ArrayOfCounts)),
        {"loss": SmoothingMore},
        {"make": lambda weights: sgd(weights, lr=np.float64(0.1), weight_decay=np.float32(1e-3))},
        {"schedule": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: np.exp(-epoch))},
        {"schedule": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, np.float64(0.9))},
    ],
)
def test_a_killed_training_with_hidden_state_or_numpy_numbers_resumes_to_the_same_bits(parts, tmp_path):
    whole = trained(tmp_path / "whole", **parts)
    with pytest.raises(Killed):
        trained(tmp_path / "run", killed_after=1, **parts)
    assert torch.equal(trained(tmp_path / "run", **parts), whole)


@pytest.mark.parametrize(("front", "told"), [(Log, r"seen, a list"), (Last, r"last, a dict")])
def test_state_that_cannot_be_kept_is_told(front, told, tmp_path):
    with pytest.warns(UserWarning, match=rf"^checkpoint: model\.0\.{told}, changes in training"):
        trained(tmp_path / "run", front=front)


def test_a_model_without_hidden_state_needs_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(tmp_path / "run", front=lambda: nn.BatchNorm1d(8))


class Note:
    pass


class OfATypeOfItsOwn(nn.Module):
    def forward(self, x):
        return x

    def get_extra_state(self):
        return Note()

    def set_extra_state(self, state):
        pass


def test_a_state_that_could_not_be_read_again_is_refused_after_the_first_epoch(tmp_path):
    with pytest.raises(CheckpointError, match=r"^checkpoint: the model has a value of a type that a resumed"):
        trained(tmp_path / "run", front=OfATypeOfItsOwn)
    assert not (tmp_path / "run").exists()
