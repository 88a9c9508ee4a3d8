"""State that a model keeps in its class, or a model or a loss in functions and objects around it, is seen."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from landscape import Objective

INPUTS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.arange(12) % 3
kept_by_name = None
registry, of_the_file = {}, SimpleNamespace(weight=None)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()

    def forward(self, x):
        return self.head(torch.tanh(x @ self.kept().T))

    def now(self):
        return self.hidden.weight.detach().clone()


class InItsClass(Linear):
    weight = None

    def kept(self):
        if self.weight is None:
            type(self).weight = self.now()
        return self.weight


class InABaseOfItsClass(InItsClass):
    pass


class InADictOfItsClass(Linear):
    weights = {}  # noqa: RUF012

    def kept(self):
        return self.weights.setdefault("weight", self.now())


class InATensorOfItsClass(Linear):
    weight = torch.full((5, 4), torch.nan, dtype=torch.float64)

    def kept(self):
        if self.weight.isnan().any():
            self.weight.copy_(self.now())
        return self.weight


class InAnArrayOfItsClass(Linear):
    weight = np.zeros((5, 4))

    def kept(self):
        if not self.weight.any():
            self.weight[:] = self.now().numpy()
        return torch.from_numpy(self.weight)


class UnderAGlobalName(Linear):
    def kept(self):
        global kept_by_name
        if kept_by_name is None:
            kept_by_name = self.now()
        return kept_by_name


class InARegistry(Linear):
    def kept(self):
        return registry.setdefault("weight", self.now())


class InAnObjectOfItsFile(Linear):
    def kept(self):
        if of_the_file.weight is None:
            of_the_file.weight = self.now()
        return of_the_file.weight


def in_a_closure():
    weights = []

    class InAClosure(Linear):
        def kept(self):
            if not weights:
                weights.append(self.now())
            return weights[0]

    return InAClosure()


MODELS = [
    InItsClass,
    InABaseOfItsClass,
    InADictOfItsClass,
    InATensorOfItsClass,
    InAnArrayOfItsClass,
    UnderAGlobalName,
    InARegistry,
    InAnObjectOfItsFile,
    in_a_closure,
]


@pytest.mark.parametrize("make", MODELS)
def test_a_model_that_keeps_its_first_weights_is_refused_and_its_state_is_as_before(make):
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"^model: its outputs depend on the passes before, of which it keeps"
        ):
            Objective(make(), nn.CrossEntropyLoss(), (INPUTS, TARGETS))


def test_weights_that_a_function_around_the_model_keeps_are_refused():
    kept = {}

    def forward(model, batch):
        x = batch[0]
        return model[1](torch.tanh(x @ kept.setdefault("weight", model[0].weight.detach().clone()).T))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).double()
    with pytest.raises(ValueError, match=r"^model: .* it keeps 'kept'"):
        Objective(
            model, lambda outputs, batch: cross_entropy(outputs, batch[1]), (INPUTS, TARGETS), forward=forward
        )


def relative_to_the_first(first, outputs, targets):
    loss = cross_entropy(outputs, targets)
    return loss / first.setdefault("loss", loss.detach())


class RelativeToTheFirst(nn.Module):
    first = None

    def forward(self, outputs, targets):
        loss = cross_entropy(outputs, targets)
        if self.first is None:
            type(self).first = loss.detach()
        return loss / self.first


@pytest.mark.parametrize(
    "make", [lambda: partial(relative_to_the_first, {}), RelativeToTheFirst], ids=["partial", "class"]
)
def test_a_loss_that_divides_by_the_loss_of_its_first_call_is_refused(make):
    with pytest.raises(ValueError, match="^loss_fn: its value depends on the calls before"):
        Objective(nn.Linear(4, 3).double(), make(), (INPUTS, TARGETS))


def test_calls_that_are_only_counted_and_written_down_change_nothing():
    losses = []

    class Counting(nn.Linear):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            return super().forward(x)

    def loss_fn(outputs, targets):
        loss = cross_entropy(outputs, targets)
        losses.append(loss.item())
        return loss

    model = Counting(4, 3).double()
    expected = cross_entropy(model(INPUTS), TARGETS).item()
    assert Objective(model, loss_fn, (INPUTS, TARGETS)).value() == pytest.approx(expected, rel=1e-12)
    assert Counting.calls > 1
    assert losses
