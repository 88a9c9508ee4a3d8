"""Outputs that change, or mix samples, by little more than rounding are refused; rounding alone is not."""

import random

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from landscape import Objective, top_eigenvalues
from tests.conformance.right import network, samples, words

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


class Altered(nn.Module):
    """The outputs of a network times what a function makes of them."""

    def __init__(self, factor):
        super().__init__()
        self.network = network()
        self.factor = factor

    def forward(self, x):
        outputs = self.network(x)
        return outputs * self.factor(outputs)


def noise(share):
    return lambda outputs: 1 + share * torch.rand((), dtype=torch.float64, device="cpu").to(outputs)


def mixture(share):
    """Outputs that depend on other samples by the share: means of batches differ by about a fiftieth."""
    return lambda outputs: 1 + 50 * share * outputs.mean()


@pytest.mark.parametrize("way", ["samples", "batches"])
@pytest.mark.parametrize(
    ("dtype", "share"),
    [
        (torch.float64, 1e-7),
        (torch.float64, 1e-5),
        (torch.float32, 1e-6),
        (torch.float32, 1e-5),
        # smaller noise does not change a number in half precision in each run, and then cannot be seen
        (torch.bfloat16, 0.1),
        (torch.float16, 0.02),
    ],
)
def test_outputs_that_change_by_little_are_refused(way, dtype, share):
    model = Altered(noise(share)).to(dtype)
    options = {"forward": lambda model, batch: model(batch[0])} if way == "batches" else {}
    loss = (lambda outputs, batch: cross_entropy(outputs, batch[1])) if options else cross_entropy
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="^model: its outputs for a sample differ from one run of the same"):
        Objective(model, loss, samples(dtype=dtype), **options)


class Unordered(nn.Module):
    """A sum without a fixed order, as several threads add entries to one place. Its terms cancel but for a share."""

    def __init__(self, share):
        super().__init__()
        self.network, self.share = network(), share

    def forward(self, x):
        terms = self.network(x).unsqueeze(-1) * torch.linspace(-1, 1 + self.share, 400, device="cpu").to(x)
        total = torch.zeros_like(terms[..., 0])
        # an order that no seed sets
        for index in random.SystemRandom().sample(range(400), 400):
            total = total + terms[..., index]
        return total


@pytest.mark.parametrize("way", ["samples", "batches"])
@pytest.mark.parametrize(
    ("dtype", "share"), [(torch.float64, 1e-3), (torch.float32, 1e-3), (torch.float16, 5e-2)]
)
def test_a_sum_without_a_fixed_order_raises_no_alarm(way, dtype, share):
    torch.manual_seed(0)
    options = {"forward": lambda model, batch: model(batch[0])} if way == "batches" else {}
    loss = (lambda outputs, batch: cross_entropy(outputs, batch[1])) if options else cross_entropy
    objective = Objective(Unordered(share).to(dtype), loss, samples(dtype=dtype), **options)
    assert torch.isfinite(torch.tensor(objective.value()))


@pytest.mark.parametrize(
    ("dtype", "share"),
    [(torch.float64, 1e-6), (torch.float32, 2e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)],
)
def test_outputs_that_mix_samples_by_little_are_refused(dtype, share):
    with pytest.raises(ValueError, match="or with the other samples of the batch"):
        Objective(Altered(mixture(share)).to(dtype), cross_entropy, samples(dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_that_mix_samples_by_less_than_a_millionth_are_measured(dtype):
    """As those of a neural ODE do, whose adaptive solver chooses its steps by the whole batch."""
    objective = Objective(
        Altered(mixture(1e-7)).to(dtype), cross_entropy, samples(40, dtype=dtype), chunk_size=16
    )
    plain = Objective(network().to(dtype), cross_entropy, samples(40, dtype=dtype))
    found, right = (top_eigenvalues(each, k=1, seed=0).values[0] for each in (objective, plain))
    assert found == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), random.SystemRandom().random])
@pytest.mark.parametrize("share", [1e-5, 1e-3])
def test_a_loss_that_changes_by_little_is_refused(share, draw):
    def loss(outputs, targets):
        return cross_entropy(outputs, targets) * (1 + share * draw())

    with pytest.raises(ValueError, match="loss_fn: the loss of the same outputs"):
        Objective(network().float(), loss, samples(dtype=torch.float32))


def test_a_model_that_drifts_by_a_millionth_within_a_measure_is_refused():
    passes = []

    def factor(_):
        passes.append(0)
        return 1 + 1e-6 * (len(passes) > limit)

    limit = float("inf")
    objective = Objective(Altered(factor), cross_entropy, samples(), linearize=False)
    limit = len(passes) + 12
    with pytest.raises(ValueError, match="between the beginning and the end of this measure"):
        top_eigenvalues(objective, k=1, seed=0)


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.attention(x.view(len(x), -1, 1).expand(-1, -1, 4))[:, 0])


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.last = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.cell(x.unsqueeze(-1))[0][:, -1])


class Convolves(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.GELU(), nn.AdaptiveAvgPool1d(1))
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.layers(x.unsqueeze(1)).flatten(1))


def test_an_objective_prints_model_loss_and_sizes():
    objective = Objective(network(), cross_entropy, samples())
    assert repr(objective) == "Objective(Sequential, cross_entropy, parameters=39, samples=12, dtype=float64)"


RIGHT = {"dense": network, "attention": Attends, "memory": Remembers, "convolution": Convolves}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("count", [12, 200])
def test_rounding_raises_no_alarm(name, dtype, count):
    torch.manual_seed(0)
    model = RIGHT[name]().to(dtype)
    objective = Objective(model, cross_entropy, samples(count, dtype=dtype))
    assert torch.isfinite(torch.tensor(objective.value()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_of_words_raises_no_alarm(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(9, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    assert Objective(model, cross_entropy, words()).value() > 0
