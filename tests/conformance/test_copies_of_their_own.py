"""Models and losses whose classes say how they are copied: what is done to a copy is not done to the caller's."""

import copy

import pytest
import torch
from torch import nn

from landscape import Objective
from ncsam import RegCE
from tests.conformance.right import D, samples

cross_entropy = nn.CrossEntropyLoss()


class Shared(nn.Sequential):
    """As a large encoder that all copies of a model share."""

    def __deepcopy__(self, memo):
        return self


class Shallow(nn.Sequential):
    def __deepcopy__(self, memo):
        made = copy.copy(self)
        made._modules = dict(self._modules)
        return made


class MadeAnew(nn.Sequential):
    """Forgets what was learned."""

    def __deepcopy__(self, memo):
        return encoder(MadeAnew, seed=1)


def encoder(kind, seed=0):
    torch.manual_seed(seed)
    return kind(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh()).to(D)


def models(kind):
    return [
        nn.Sequential(encoder(kind), nn.Dropout(0.5), nn.Linear(4, 3).to(D)),
        encoder(kind).append(nn.Linear(4, 3).to(D)),
    ]


def state_of(module):
    return [
        *(part.training for part in module.modules()),
        *(weight.requires_grad for weight in module.parameters()),
        *(tensor.clone() for tensor in module.state_dict().values()),
    ]


def assert_same_state(module, before):
    for now, then in zip(state_of(module), before, strict=True):
        assert torch.equal(now, then) if isinstance(now, torch.Tensor) else now == then


@pytest.mark.parametrize("kind", [Shared, Shallow])
@pytest.mark.parametrize("place", [0, 1], ids=["part", "whole"])
def test_a_model_whose_copies_share_its_parts_is_measured_and_stays_as_it_was(kind, place):
    model = models(kind)[place]
    before = state_of(model)
    objective = Objective(model, cross_entropy, samples())
    assert_same_state(model, before)
    inputs, targets = samples()
    value = objective.value()
    assert value == pytest.approx(cross_entropy(model.eval()(inputs), targets).item())
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert objective.value() == value


def test_a_model_whose_copies_forget_its_weights_is_measured_at_its_weights():
    model = nn.Sequential(encoder(MadeAnew), nn.Linear(4, 3).to(D))
    inputs, targets = samples()
    expected = cross_entropy(model.eval()(inputs), targets)
    assert Objective(model, cross_entropy, (inputs, targets)).value() == pytest.approx(expected.item())


class OfLearnedFeatures(nn.Module):
    """A loss that holds a network, whose copies are itself."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(3, 2).to(D), nn.Dropout(0.5)).requires_grad_(False)

    def __deepcopy__(self, memo):
        return self

    def forward(self, scores, targets):
        return self.features(scores).square().sum(1).mean() + cross_entropy(scores, targets)


def test_a_loss_whose_copies_are_itself_stays_in_training():
    loss = OfLearnedFeatures()
    before = state_of(loss)
    Objective(nn.Linear(5, 3).to(D), loss, samples())
    assert_same_state(loss, before)


def test_the_average_of_a_model_whose_copies_are_itself_is_another_network():
    model = models(Shared)[0]
    method = RegCE(model, cross_entropy)
    method.backward(*samples())
    assert all(weight.grad is not None for weight in model.parameters())
    assert not {id(each) for each in model.modules()} & {
        id(each) for each in method.average.network.modules()
    }


class Whole(nn.Module):
    """Is copied by its name alone, as a constant of its library."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 5, dtype=D))

    def __reduce_ex__(self, protocol):
        return "the_only_one"

    def forward(self, x):
        return x @ self.weight.T


def test_a_model_that_cannot_be_copied_in_any_way_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"model: a copy by copy.deepcopy shares .*Whole copy all it holds"):
        Objective(Whole(), cross_entropy, samples())


class Untying(nn.Module):
    """Two layers of one weight, whose copies have a weight each."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, inputs):
        return self.second(torch.tanh(self.first(inputs)))

    def __deepcopy__(self, memo):
        made = Untying()
        made.first, made.second = copy.deepcopy(self.first), copy.deepcopy(self.second)
        return made


def test_a_model_whose_copies_untie_its_weights_is_measured_tied():
    objective = Objective(Untying(), nn.CrossEntropyLoss(), (torch.randn(6, 3), torch.arange(6) % 3))
    assert objective.n_parameters == 9
