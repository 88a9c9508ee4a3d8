"""An Objective that follows a model."""

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.loss.moved import moved

D = torch.float64


def model_of(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).to(D)
        model(torch.randn(20, 4, dtype=D))
    return model.eval()


DATA = torch.randn(12, 4, dtype=D, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"parameters": lambda name: name.startswith("3")},
        {"regularizer": lambda w: w["0.weight"].square().sum()},
    ],
    ids=["plain", "some parameters", "regularizer"],
)
def test_it_is_the_objective_that_is_made_of_the_model_anew(options):
    first, later = model_of(1), model_of(2)
    objective = Objective(first, nn.CrossEntropyLoss(), DATA, **options)
    before, product_before = objective.value(), objective.hvp(torch.ones_like(objective.theta))
    expected = Objective(later, nn.CrossEntropyLoss(), DATA, **options)
    if "parameters" not in options:
        weights_of_another = moved(objective, first, dict(later.named_parameters()))
        torch.testing.assert_close(weights_of_another.theta, expected.theta, rtol=0, atol=0)
    found = moved(objective, torch.compile(later, backend="eager"))
    assert found.value() == expected.value()
    ones = torch.ones_like(expected.theta)
    torch.testing.assert_close(found.gradient(), expected.gradient(), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.hvp(ones), expected.hvp(ones), rtol=1e-12, atol=1e-15)
    assert objective.value() == before
    torch.testing.assert_close(objective.hvp(ones), product_before, rtol=0, atol=0)


def test_another_model_is_refused():
    objective = Objective(model_of(1), nn.CrossEntropyLoss(), DATA)
    with pytest.raises(ValueError, match="'0.weight'"):
        moved(objective, nn.Sequential(nn.Linear(4, 6)))


class Tempered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.temperature = nn.Linear(4, 2).to(D), 1.0

    def forward(self, x):
        return self.layer(x) * self.temperature


def test_numbers_that_a_layer_holds_are_followed():
    model = Tempered()
    objective = Objective(model, nn.CrossEntropyLoss(), DATA)
    model.temperature = 5.0
    expected = nn.functional.cross_entropy(model(DATA[0]), DATA[1]).item()
    assert moved(objective, model).value() == pytest.approx(expected)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Linear(2, 2).to(D)], ids=["without weights", "with weights"])
def test_a_model_with_another_layer_is_refused(layer):
    model = model_of(1)
    objective = Objective(model, nn.CrossEntropyLoss(), DATA)
    with pytest.raises(ValueError, match=r"^model: its layer '4' is a"):
        moved(objective, nn.Sequential(*model, layer))
    replaced = nn.Sequential(*model)
    replaced[2] = nn.ReLU()
    with pytest.raises(ValueError, match=r"^model: its layer '2' is a ReLU"):
        moved(objective, replaced)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(10, 4, sparse=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.words(x).mean(1))


def test_an_embedding_with_sparse_gradients_is_followed():
    """`sparse` was taken over from the model in training, whose gradients cannot be joined to one vector."""
    model = Words().to(D)
    words = torch.randint(0, 10, (12, 6), generator=torch.Generator().manual_seed(0))
    targets = torch.arange(12) % 3
    objective = Objective(model, nn.CrossEntropyLoss(), (words, targets))
    loss = nn.functional.cross_entropy(model(words), targets)
    loss.backward()
    expected = torch.cat(
        [p.grad.to_dense().flatten() if p.grad.is_sparse else p.grad.flatten() for p in model.parameters()]
    )
    torch.testing.assert_close(moved(objective, model).gradient(), expected, rtol=1e-12, atol=1e-15)
    assert model.words.sparse
