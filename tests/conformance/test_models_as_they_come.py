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
from tests.conformance.right import D, assert_right, network, samples, words

cross_entropy = nn.CrossEntropyLoss()


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


class NeighborMeans(nn.Module):
    """A graph as a sparse buffer."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(5, 4), nn.Linear(4, 3)
        self.register_buffer("neighbors", torch.eye(4).roll(1, 0).to_sparse())

    def forward(self, x):
        return self.head(torch.tanh(torch.sparse.mm(self.neighbors, self.inner(x).T).T))


class OfNestedTensors(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        rows = torch.nested.as_nested_tensor([x[i : i + 1] for i in range(len(x))])
        return self.head(torch.tanh(torch.nested.to_padded_tensor(self.inner(rows), 0.0)[:, 0]))


@pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors", "ignore:model. products are differences"
)
@pytest.mark.parametrize("make", [NeighborMeans, OfNestedTensors])
def test_layouts_of_which_torch_knows_few_operations(make):
    """Torch compares no sparse tensors, and neither counts the operations of nested ones nor differentiates twice."""
    torch.manual_seed(0)
    model = make().to(D)
    objective = Objective(model, cross_entropy, samples())
    assert_right(objective, model, samples())
    directions = filter_normalized_directions(objective, 1, seed=0)
    assert line(objective, directions, steps=3).loss[1] == pytest.approx(objective.value(), rel=1e-12)


HIDDEN = []


class InstallsHooks(nn.Module):
    """Puts a hook on a layer in its first pass, as models of transformers do to collect hidden states."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        if not hasattr(self, "has_hooks"):
            self.has_hooks = True
            self.inner.register_forward_hook(lambda _, __, output: HIDDEN.append(output))
        HIDDEN.clear()
        self.inner(x)
        return self.head(torch.tanh(sum(HIDDEN)))


def test_hooks_that_the_first_pass_installs_are_there_once():
    """SegFormer: each hidden state was there twice, because the attribute was restored but not the hooks."""
    torch.manual_seed(0)
    model = InstallsHooks().to(D)
    assert_right(Objective(model, cross_entropy, samples()), model, samples())


class CachesAProduct(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head, self.cache = nn.Linear(5, 4), nn.Linear(4, 3), {}

    def forward(self, x):
        if "product" not in self.cache:
            self.cache["product"] = self.head.weight @ self.inner.weight
        return torch.tanh(x @ self.cache["product"].T)


class Positions(nn.Module):
    """With a code of positions, which are added along the batch, because the sequences have the other order of axes."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.register_buffer("code", torch.randn(200, 1, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return self.head(x + self.code[: len(x)])


class MoreWhereRecorded(nn.Module):
    """Returns one output more where torch records derivatives."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        outputs = self.head(x)
        return (outputs, outputs.mean()) if torch.is_grad_enabled() else (outputs,)


class Forks(nn.Module):
    """Computes something else where torch records no derivatives."""

    def __init__(self, records):
        super().__init__()
        self.head, self.records = nn.Linear(5, 3), records

    def forward(self, x):
        outputs = self.head(x)
        return outputs if self.records(outputs) else 1.5 * outputs


class Unregistered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.head = [nn.Linear(5, 4)], nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.layers[0](x))


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
        (
            Positions,
            ValueError,
            r"its outputs for a sample differ .* with its place in the batch.*batch_first",
        ),
        (lambda: Forks(lambda _: torch.is_grad_enabled()), ValueError, "its outputs differ between a pass"),
        (
            lambda: Forks(lambda outputs: outputs.requires_grad),
            ValueError,
            "its outputs differ between a pass",
        ),
        (CachesAProduct, ValueError, "its outputs depend on the passes before, of which it keeps 'cache'"),
        (Unregistered, ValueError, "put layers into a ModuleList"),
        (lambda: network().requires_grad_(False), ValueError, "none of its parameters requires a gradient"),
    ],
)
def test_models_that_cannot_be_measured_are_refused_with_cause_and_remedy(make, error, cause):
    with pytest.raises(error, match=f"model: .*{cause}"):
        Objective(make(), cross_entropy, samples())


def test_an_output_more_where_torch_records_is_refused():
    with pytest.raises(ValueError, match="^model: its outputs differ between a pass"):
        Objective(
            MoreWhereRecorded(),
            lambda outputs, batch: cross_entropy(outputs[0], batch[1]),
            samples(),
            forward=lambda model, batch: model(batch[0]),
        )


def test_a_choice_of_no_parameter_names_those_there_are():
    with pytest.raises(ValueError, match=r"parameters: none .* is chosen, of '0\.weight', '0\.bias'"):
        Objective(network(), cross_entropy, samples(), parameters=lambda name: name == "head.weight")


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
