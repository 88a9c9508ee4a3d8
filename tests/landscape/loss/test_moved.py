"""An Objective that follows a model."""

from dataclasses import dataclass

import numpy as np
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


@dataclass
class Settings:
    temperature: float = 1.0
    of_layers: tuple = (1.0, [1.0])


def halved(z):
    return z / 2


class WithAttributes(nn.Module):
    """A network whose outputs are multiplied by what it holds in many forms."""

    def __init__(self, shared):
        super().__init__()
        self.layer = nn.Linear(4, 2).to(D)
        self._hidden, self.tensor, self.array = 1.0, torch.tensor(1.0), np.ones(2)
        self.listed, self.named, self.shared = [1.0, torch.ones(2)], {"a": {"b": 1.0}}, shared
        self.settings, self.function, self.nothing, self.whole = (
            Settings(),
            torch.tanh,
            None,
            torch.tensor(True),
        )

    def forward(self, x):
        z = self.layer(x) * self._hidden * self.tensor * float(self.array[1]) * self.settings.temperature
        z = z * self.listed[0] * self.listed[1] * self.named["a"]["b"] * self.settings.of_layers[1][0]
        return self.function(z) * (self.nothing or 1.0) * self.whole * self.shared["factor"]


CHANGES = {
    "underscore": lambda m: setattr(m, "_hidden", 3.0),
    "tensor": lambda m: setattr(m, "tensor", torch.tensor(3.0)),
    "tensor in place": lambda m: m.tensor.fill_(3.0),
    "tensor of another dtype": lambda m: setattr(m, "whole", torch.tensor(3)),
    "array": lambda m: m.array.__setitem__(1, 3.0),
    "list": lambda m: m.listed.__setitem__(0, 3.0),
    "tensor in a list": lambda m: m.listed[1].fill_(3.0),
    "longer list": lambda m: setattr(m, "listed", [3.0, 2.0, 1.0]),
    "dict in a dict": lambda m: m.named["a"].update(b=3.0),
    "object": lambda m: setattr(m.settings, "temperature", 3.0),
    "list in a tuple in an object": lambda m: m.settings.of_layers[1].__setitem__(0, 3.0),
    "function": lambda m: setattr(m, "function", halved),
    "None": lambda m: setattr(m, "nothing", 3.0),
    "dict of two layers": lambda m: m.shared.update(factor=3.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_a_layer_holds_is_followed_and_not_shared(change):
    torch.manual_seed(0)
    shared = {"factor": 1.0}
    model = nn.Sequential(WithAttributes(shared), nn.Linear(2, 4).to(D), WithAttributes(shared))
    objective = Objective(model, nn.CrossEntropyLoss(), DATA)
    before = objective.value()
    change(model[2])
    anew = Objective(model, nn.CrossEntropyLoss(), DATA).value()
    found = moved(objective, model)
    assert found.value() == pytest.approx(anew, rel=1e-12)
    assert abs(anew - before) > 1e-3
    assert objective.value() == before
    change(found.model[2])
    found.model[2].tensor.fill_(7.0)
    found.model[2].listed[0] = 7.0
    assert Objective(model, nn.CrossEntropyLoss(), DATA).value() == anew


def test_devices_and_dtypes_stay_those_of_the_copy():
    model = Tempered()
    model._device, model.dtype, model.later = torch.device("cpu"), torch.float64, None
    objective = Objective(model, nn.CrossEntropyLoss(), DATA)
    model._device, model.dtype, model.later = torch.device("meta"), torch.float32, torch.float32
    found = moved(objective, model).model
    assert (found._device, found.dtype, found.later) == (torch.device("cpu"), torch.float64, torch.float32)


def test_a_function_that_runs_a_layer_of_the_model_in_training_is_not_taken_over():
    model = Tempered()
    objective = Objective(model, nn.CrossEntropyLoss(), DATA)
    model.unused = lambda x, layer=model.layer: layer(x)
    model.bound, model.closed = model.layer.forward, lambda x: model.layer(x)
    model.layer.weight.data.mul_(2)
    found = moved(objective, model)
    assert vars(found.model).keys().isdisjoint({"unused", "bound", "closed"})
    assert found.value() == pytest.approx(nn.functional.cross_entropy(model(DATA[0]), DATA[1]).item())


@pytest.mark.parametrize(
    "model",
    [
        nn.LSTM(4, 3),
        nn.GRU(4, 3, num_layers=2),
        nn.utils.weight_norm(nn.Linear(4, 3)),
        nn.utils.spectral_norm(nn.Linear(4, 3)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_layers_that_keep_lists_or_products_of_their_weights_are_followed(model):
    def run(model, batch):
        found = model(batch[0].unsqueeze(0))
        return found[0] if isinstance(found, tuple) else found

    def loss_fn(outputs, _):
        return outputs.square().mean()

    model = model.to(D).eval()
    objective = Objective(model, loss_fn, DATA, forward=run)
    for _ in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        model(DATA[0].unsqueeze(0))
        found, anew = moved(objective, model), Objective(model, loss_fn, DATA, forward=run)
        assert found.value() == anew.value()
        torch.testing.assert_close(found.gradient(), anew.gradient(), rtol=1e-12, atol=0)


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
