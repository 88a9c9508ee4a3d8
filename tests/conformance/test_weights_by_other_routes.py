"""Weights that reach a forward pass otherwise than from their module: right, or refused with the cause."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from torch.nn.utils import parametrizations, parametrize

from landscape import Objective, filter_normalized_directions, line

D = torch.float64
cross_entropy = nn.CrossEntropyLoss()
INPUTS, TARGETS = torch.randn(24, 5, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3


class Network(nn.Module):
    """Two layers. `keep` is called once, and `weight` gives the weight of the first layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.Linear(5, 4), nn.Linear(4, 3)
        self.keep()

    def keep(self):
        pass

    def weight(self):
        return self.inner.weight

    def forward(self, x):
        return self.head(torch.tanh(linear(x, self.weight(), self.inner.bias)))


class InAList(Network):
    def keep(self):
        self.kept = [self.inner.weight]

    def weight(self):
        return self.kept[0]


class InADict(Network):
    def keep(self):
        self.kept = dict(self.named_parameters())

    def weight(self):
        return self.kept["inner.weight"]


class InAHelper(Network):
    def keep(self):
        self.kept = type("Helper", (), {})()
        self.kept.weight = self.inner.weight

    def weight(self):
        return self.kept.weight


class InAPartial(Network):
    def keep(self):
        self.kept = functools.partial(linear, weight=self.inner.weight)

    def forward(self, x):
        return self.head(torch.tanh(self.kept(x, bias=self.inner.bias)))


class InItsAttributes(Network):
    def keep(self):
        self.__dict__["kept"] = self.inner.weight

    def weight(self):
        return self.__dict__["kept"]


@pytest.mark.parametrize("dtype", [None, D])
@pytest.mark.parametrize("network", [InAList, InADict, InAHelper, InAPartial, InItsAttributes])
def test_a_weight_that_its_model_keeps_elsewhere_too_is_refused_by_name(network, dtype):
    with pytest.raises(ValueError, match=r"^model: .* the copy's first parameters 'inner\.weight'"):
        Objective(network(), cross_entropy, (INPUTS, TARGETS), dtype=dtype)


class ByData(Network):
    def keep(self):
        self.kept = self.inner.weight.data

    def weight(self):
        return self.kept


class ByAView(ByData):
    def keep(self):
        self.kept = self.inner.weight[:, :]


class ByABuffer(ByData):
    def keep(self):
        self.register_buffer("kept", self.inner.weight.data)


class ByACache(Network):
    @functools.lru_cache  # noqa: B019
    def weight(self):
        return self.inner.weight * 1


KEPT = {}


class ByACacheOfEvaluations(Network):
    def weight(self):
        if self.training:
            return self.inner.weight
        return KEPT.setdefault(id(self), self.inner.weight.detach().clone())


class LoRA(nn.Linear):
    """A layer whose `eval()` adds its low-rank product to its weight, as in microsoft/LoRA."""

    merges = True

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.a, self.b = nn.Parameter(torch.randn(2, inputs)), nn.Parameter(torch.zeros(outputs, 2))
        self.weight.requires_grad_(False)
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if self.merges and mode == self.merged:
            self.weight.data += (-1 if mode else 1) * (self.b @ self.a)
            self.merged = not mode
        return self

    def forward(self, x):
        outputs = linear(x, self.weight, self.bias)
        return outputs if self.merged else outputs + x @ self.a.T @ self.b.T


class Unmerged(LoRA):
    merges = False


class Standardized(nn.Linear):
    """A layer whose `eval()` standardizes its weight for good."""

    def standard(self):
        return self.weight - self.weight.mean(1, keepdim=True)

    def train(self, mode=True):
        super().train(mode)
        self.folded = None if mode else self.standard().detach()
        return self

    def forward(self, x):
        return linear(x, self.standard() if self.folded is None else self.folded, self.bias)


def with_first(layer):
    torch.manual_seed(0)
    return nn.Sequential(layer(5, 4), nn.Tanh(), nn.Linear(4, 3)).train()


MODELS = {
    "data": ByData,
    "view": ByAView,
    "buffer": ByABuffer,
    "cache": ByACache,
    "cache of evaluations": ByACacheOfEvaluations,
    "merged by eval": lambda: with_first(LoRA),
    "merged before": lambda: with_first(LoRA).eval(),
    "standardized by eval": lambda: with_first(Standardized),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_that_would_not_follow_its_weights_is_refused(name):
    model = MODELS[name]()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ValueError, match=r"^model: with other weights its outputs are not those of the model"
    ):
        Objective(model, cross_entropy, (INPUTS, TARGETS))
    assert all(torch.equal(now, before[name]) for name, now in model.state_dict().items())


def test_low_rank_layers_that_do_not_merge_have_the_gradient_of_their_product():
    model = with_first(Unmerged)
    parameters = dict(model.named_parameters())
    loss = cross_entropy(model(INPUTS), TARGETS)
    objective = Objective(model, cross_entropy, (INPUTS, TARGETS))
    right = torch.autograd.grad(loss, [parameters[name] for name in objective.names])
    torch.testing.assert_close(objective.gradient(), torch.cat([each.flatten() for each in right]))


def test_weights_kept_by_parametrize_cached_are_computed_anew():
    model = nn.Sequential(parametrizations.orthogonal(nn.Linear(5, 5)), nn.Tanh(), nn.Linear(5, 3)).to(D)
    data = INPUTS.to(D), TARGETS
    objective = Objective(model, cross_entropy, data)
    direction = filter_normalized_directions(objective, 1, seed=0)
    right = objective.gradient(), line(objective, direction, steps=3).loss
    with parametrize.cached():
        kept = model[0].weight
        for inside in (objective, Objective(model, cross_entropy, data)):
            assert torch.equal(inside.gradient(), right[0])
            assert line(inside, direction, steps=3).loss == pytest.approx(right[1], rel=1e-12)
        assert model[0].weight is kept
