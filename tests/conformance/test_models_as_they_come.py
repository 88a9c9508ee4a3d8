"""Models and weights in unusual states: each is measured right, or refused with cause and remedy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from landscape import (
    Objective,
    direction_to,
    filter_normalized_directions,
    line,
    top_eigenvalues,
    trajectory_directions,
)

D = torch.float64
cross_entropy = nn.CrossEntropyLoss()


def samples(count=12, dtype=D):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 5, generator=generator, dtype=dtype), torch.arange(count) % 3


def words(count=12):
    return torch.randint(0, 9, (count, 4), generator=torch.Generator().manual_seed(1)), torch.arange(
        count
    ) % 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(D)


def assert_right(objective, model, data):
    """The gradient against autograd on the model itself, a product against differences of such gradients."""

    def gradient(step):
        moved = copy.deepcopy(model).eval()
        start = 0
        for name in objective.names:
            parameter = moved.get_parameter(name)
            part = step[start : start + parameter.numel()]
            parameter.data.add_(part.view_as(parameter))
            start += parameter.numel()
        parameters = [moved.get_parameter(name) for name in objective.names]
        found = torch.autograd.grad(cross_entropy(moved(data[0]), data[1]), parameters)
        return torch.cat([part.flatten() for part in found])

    vector = torch.randn(objective.n_parameters, dtype=D, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(objective.gradient(), gradient(0 * vector))
    expected = (gradient(1e-6 * vector) - gradient(-1e-6 * vector)) / 2e-6
    torch.testing.assert_close(objective.hvp(vector), expected, rtol=1e-6, atol=1e-8)


class Words(nn.Module):
    def __init__(self, layer):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = layer, nn.Linear(4, 3)

    def forward(self, x):
        found = self.words(x)
        return self.head(torch.tanh(found if found.ndim == 2 else found.mean(1)))


def test_sparse_gradients_of_an_embedding_are_those_of_a_dense_one():
    layer = nn.Embedding(9, 4)
    dense, sparse = Words(layer).to(D), Words(copy.deepcopy(layer)).to(D)
    sparse.words.sparse = True
    assert_right(Objective(sparse, cross_entropy, words()), dense, words())
    assert sparse.words.sparse


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 2])
def test_bags_of_words_have_second_derivatives(mode, padding):
    model = Words(nn.EmbeddingBag(9, 4, mode=mode, padding_idx=padding)).to(D)
    assert_right(Objective(model, cross_entropy, words()), model, words())


def test_pruned_weights_are_computed_anew_at_each_point():
    model = network()
    prune.l1_unstructured(model[0], "weight", 0.5)
    objective = Objective(model, cross_entropy, samples())
    assert "0.weight_orig" in objective.names
    assert model[0].weight.grad_fn is not None
    # a copy of it is only to be had once the pruned weight is no longer computed
    del model[0].weight
    assert_right(objective, model, samples())


class KeepsAFeature(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.head = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        self.feature = self.inner(x)
        return self.head(self.norm(self.feature))


def test_a_model_that_keeps_a_feature_is_copied_also_after_a_pass():
    model = KeepsAFeature().to(D)
    model(samples()[0])
    objective = Objective(model, cross_entropy, samples())
    objective.gradient()
    directions = filter_normalized_directions(objective, 1, seed=0)
    assert np.isfinite(line(objective, directions, steps=3, batch_norm="recalibrate").loss).all()
    del model.feature
    assert_right(objective, model, samples())


def test_tied_weights_are_one_variable():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x):
            return self.head(torch.tanh(self.words(x).mean(1)))

    model = Tied().to(D)
    objective = Objective(model, cross_entropy, words())
    assert objective.names == ("words.weight",)
    assert_right(objective, model, words())


@pytest.mark.parametrize("parametrized", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_weights_have_the_variables_below_them(parametrized):
    model = network()
    parametrized(model[0])
    assert_right(Objective(model, cross_entropy, samples()), model, samples())


class Adapted(nn.Module):
    """A frozen body in half precision, and a trained head in float32."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 8).bfloat16().requires_grad_(False), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x.bfloat16()).float()))


def test_frozen_weights_may_have_another_dtype():
    inputs, targets = samples(dtype=torch.float32)
    model = Adapted()
    objective = Objective(model, cross_entropy, (inputs, targets))
    assert objective.dtype == torch.float32
    assert objective.value() == pytest.approx(cross_entropy(model(inputs), targets).item(), rel=1e-6)
    features = torch.tanh(model.body(inputs.bfloat16()).float())
    head = Objective(model.head, cross_entropy, (features, targets))
    np.testing.assert_allclose(top_eigenvalues(objective).values, top_eigenvalues(head).values, rtol=1e-4)


def lazy():
    return nn.Sequential(nn.LazyLinear(3))


def mixed():
    return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3).double())


def traced():
    return torch.jit.trace(network(), samples()[0])


@pytest.mark.parametrize(
    ("make", "error", "cause"),
    [
        (lazy, ValueError, "has no values yet; run a lazy module once"),
        (lambda: network().to("meta"), ValueError, "lies on the meta device"),
        (
            mixed,
            ValueError,
            r"several dtypes \('0\.weight' in torch\.float32, '1\.weight' in torch\.float64\)",
        ),
        (traced, TypeError, "a ScriptModule .* takes no other weights"),
        (lambda: network().forward, TypeError, r"must be a torch\.nn\.Module, got method"),
    ],
    ids=["lazy", "meta", "mixed", "scripted", "function"],
)
def test_models_that_cannot_be_measured_are_refused_with_cause_and_remedy(make, error, cause):
    with pytest.raises(error, match=f"model: .*{cause}"):
        Objective(make(), cross_entropy, samples())


def test_weights_may_be_numpy_arrays():
    objective = Objective(network(), cross_entropy, samples())
    other = {name: value.numpy() + 0.1 for name, value in network().state_dict().items()}
    direction = direction_to(objective, other)
    torch.testing.assert_close(direction.vectors[:, 0], torch.full_like(objective.theta, 0.1))
    found = line(objective, direction.vectors[:, 0].numpy(), steps=3).loss
    np.testing.assert_array_equal(found, line(objective, direction, steps=3).loss)


def test_weights_by_file_name_are_refused():
    objective = Objective(network(), cross_entropy, samples())
    with pytest.raises(TypeError, match=r"got the name 'a\.pt'; load the file first"):
        trajectory_directions(objective, ["a.pt", "b.pt"])
