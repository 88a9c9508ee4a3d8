"""Models and losses that draw in evaluation mode are refused, also where few draws show; others are measured right."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout, gumbel_softmax, scaled_dot_product_attention

from landscape import Objective
from tests.conformance.right import D, assert_right, network, samples

SEEDS = range(5)
RARE = 0.01
GENERATOR = torch.Generator()
PYTHONS, NUMPYS = random.Random(0), np.random.default_rng(0)


def numpys_old():
    return np.random.rand()  # noqa: NPY002


class Random(nn.Module):
    """A network whose last block is a residual one; a function of it, its input and its module alters it."""

    def __init__(self, altered):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.block, self.last = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.altered = altered
        self.generator, self.pythons = torch.Generator(), random.Random(0)
        self.to(D)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.last(hidden + self.altered(torch.tanh(self.block(hidden)), self))


def kept(draw):
    """A block that is left out in the share RARE of the draws."""
    return lambda block, module: block * float(draw(module) >= RARE)


RARELY = {
    "torch's generator": kept(lambda _: torch.rand(())),
    "a uniform number in place": kept(lambda _: torch.empty(()).uniform_()),
    "a share of a range": kept(lambda _: torch.empty(()).uniform_(-1, 1) / 2 + 0.5),
    "a probability": kept(lambda _: torch.empty(()).bernoulli_(1 - RARE)),
    "a probability in a tensor": kept(lambda _: torch.bernoulli(torch.tensor(1 - RARE))),
    "a generator of the module": kept(lambda module: torch.rand((), generator=module.generator)),
    "a global generator": kept(lambda _: torch.rand((), generator=GENERATOR)),
    "Python": kept(lambda _: random.random()),
    "Python of the module": kept(lambda module: module.pythons.random()),
    "NumPy": kept(lambda _: numpys_old()),
    "half precision": kept(lambda _: torch.rand((), dtype=torch.bfloat16).float()),
    "dropout": lambda block, _: dropout(block, RARE, training=True),
}
OFTEN = {
    "Python of a helper": lambda block, _: block * (PYTHONS.random() >= 0.2),
    "NumPy's newer generators": lambda block, _: block * float(NUMPYS.random() >= 0.2),
    "Gumbel noise": lambda block, _: block * gumbel_softmax(block, hard=True),
    "an order": lambda block, _: block[:, torch.randperm(8)],
    "a place": lambda block, _: block.roll(int(torch.randint(8, ())), 1),
    "a place by Python": lambda block, _: block.roll(random.randrange(8), 1),
    "a choice by Python": lambda block, _: block * random.choice([1, 2, 3]) + random.gauss(0, 1),
    "a choice by NumPy": lambda block, _: block * int(3 * numpys_old()),
    "normal numbers": lambda block, _: block * float(torch.randn(()) > -1),
    "masked entries": lambda block, _: block.masked_fill(torch.rand(8) < 0.1, 0.0),
}


@pytest.mark.parametrize("name", [*RARELY, *OFTEN])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", ["samples", "batches"])
def test_a_model_that_draws_is_refused(name, seed, way):
    model = Random((RARELY | OFTEN)[name])
    seed_all(seed)
    options = {"forward": lambda model, batch: model(batch[0])} if way == "batches" else {}
    loss = (lambda outputs, batch: cross_entropy(outputs, batch[1])) if options else cross_entropy
    with pytest.raises(ValueError, match="^model: its outputs for a sample differ from one run of the same"):
        Objective(model, loss, samples(), **options)


@pytest.mark.parametrize("name", [*RARELY, *OFTEN])
def test_a_draw_that_changes_nothing_is_no_fault(name):
    """Some models of transformers draw whether to leave a layer out, and then leave it out in training alone."""

    def altered(block, module):
        (RARELY | OFTEN)[name](block, module)
        return block

    assert_right(Objective(Random(altered), cross_entropy, samples()), Random(altered), samples())


def seeded(block, _):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return block * (torch.rand(8, dtype=D) >= 0.2)


def of_a_new_generator(block, _):
    generator = torch.Generator().manual_seed(3)
    return block * torch.empty(8, dtype=D).bernoulli_(0.8, generator=generator)


CERTAIN = {
    "seeded": seeded,
    "a new generator": of_a_new_generator,
    "a seed of Python": lambda block, _: block * random.Random(3).random(),
    "a seed of NumPy": lambda block, _: block * np.random.default_rng(3).random(),
    "no probability": kept(lambda _: torch.empty(()).bernoulli_(1.0)),
    "a rounded probability": lambda block, _: block * (1.0 + torch.rand((), dtype=D)).floor(),
    "dropout that is off": lambda block, _: dropout(block, 0.5, training=False),
    "attention": lambda block, _: (
        scaled_dot_product_attention(*[block.view(1, 1, -1, 8)] * 3).view(block.shape) * 0 + block
    ),
}


@pytest.mark.parametrize("name", CERTAIN)
def test_draws_that_always_come_out_alike_are_no_fault(name):
    model = Random(CERTAIN[name])
    objective = Objective(model, cross_entropy, samples())
    assert objective.value() == pytest.approx(
        cross_entropy(model(samples()[0]), samples()[1]).item(), rel=1e-12
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(()),
        random.random,
        numpys_old,
        lambda: NUMPYS.random() - 0.1,
    ],
)
def test_a_loss_that_draws_is_refused(draw, seed):
    def loss(outputs, targets):
        return cross_entropy(outputs, targets) * (2.0 if draw() < RARE else 1.0)

    seed_all(seed)
    with pytest.raises(ValueError, match="^loss_fn: the loss of the same outputs depends on random numbers"):
        Objective(network(), loss, samples())


def test_a_loss_that_draws_inside_the_model_is_refused():
    def loss(model, batch):
        return cross_entropy(model(batch[0]), batch[1]) + (torch.rand(()) < RARE)

    with pytest.raises(ValueError, match="^model: its outputs for a sample differ from one run of the same"):
        Objective.of_loss(loss, network(), samples())


@pytest.mark.parametrize("altered", [RARELY["Python"], RARELY["NumPy"], RARELY["torch's generator"]])
def test_the_caller_draws_what_he_would_have_drawn_without_a_check(altered):
    model = Random(altered)
    seed_all(5)
    expected = torch.rand(3).tolist(), random.random(), numpys_old()
    seed_all(5)
    with pytest.raises(ValueError, match="model"):
        Objective(model, cross_entropy, samples())
    assert (torch.rand(3).tolist(), random.random(), numpys_old()) == expected


def seed_all(seed):
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    GENERATOR.manual_seed(seed)
