"""Products with the Hessian and the Gauss-Newton matrix are those of the dense matrices."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from landscape import Hessian, Objective
from landscape.fx.forward import traced_forward
from landscape.fx.linearize import linearized
from landscape.matrices import FunctionalHessian
from tests.conftest import MODEL_NAMES, Recurrent, build, dense_gauss_newton, dense_hessian, some_vectors
from tests.landscape.dense import gauss_newton_of, hessian_of

cross_entropy = nn.CrossEntropyLoss()


class ResidualImages(nn.Module):
    """Folds BatchNorm after a convolution with and without bias and in a shortcut, and not where it may not."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.BatchNorm2d(3, affine=False))
        self.shortcut = nn.Sequential(nn.Conv2d(3, 3, 1, 2, bias=False), nn.BatchNorm2d(3))
        self.shared = nn.Conv2d(3, 3, 1)
        self.after = nn.BatchNorm2d(3)
        self.head = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(12, 3))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.body(x) + self.shortcut(x))
        y = self.shared(x)
        return self.head(y + torch.tanh(self.after(y)))


def residual_images():
    _, inputs, targets = build("mlp")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return ResidualImages().double(), inputs, targets


@pytest.mark.parametrize("linearize", [False, True])
@pytest.mark.parametrize("chunk_size", [10, 37])
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_products_are_those_of_the_dense_matrices(name, chunk_size, linearize):
    model, inputs, targets = build(name)
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=chunk_size, linearize=linearize)
    vectors = some_vectors(objective.n_parameters)
    hessian, gauss_newton = hessian_of(name), gauss_newton_of(name)
    torch.testing.assert_close(objective.hvp(vectors), hessian @ vectors, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(objective.hvp(vectors[:, 0]), hessian @ vectors[:, 0], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(objective.ggnvp(vectors), gauss_newton @ vectors, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("way", ["direct", "traced", "in place"])
def test_the_functional_hessian_is_the_hessian_without_the_gauss_newton_matrix(way):
    model, inputs, targets = build("mlp")
    functional = hessian_of("mlp") - gauss_newton_of("mlp")
    objective = Objective(
        model,
        cross_entropy,
        (inputs, targets),
        chunk_size=10,
        # a curvature of the weights alone, which is part of the Gauss-Newton matrix
        regularizer=lambda parameters: sum(each.square().sum() for each in parameters.values()),
        linearize=way == "traced",
        # products in place take the least memory
        memory_budget=40 * len(functional) if way == "in place" else 2**30,
    )
    operator, vectors = FunctionalHessian(objective), some_vectors(objective.n_parameters)
    torch.testing.assert_close(operator @ vectors, functional @ vectors, rtol=1e-9, atol=1e-11)
    assert operator.is_traced == (way == "traced")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_norm_folded_into_convolutions_changes_no_product(dtype):
    model, inputs, targets = residual_images()
    hessian = dense_hessian(model, inputs, targets)
    objective = Objective(
        model.to(dtype), cross_entropy, (inputs.to(dtype), targets), chunk_size=10, linearize=True
    )
    vectors = some_vectors(objective.n_parameters)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    product = objective.hvp(vectors.to(dtype)).double()
    assert (product - hessian @ vectors).norm() <= tolerance * (hessian @ vectors).norm()


class Padded(nn.Module):
    """Bags of words with a padding word, whose row of the embedding is a constant, here not of zeros."""

    def __init__(self, padding_idx):
        super().__init__()
        self.embedding = nn.Embedding(12, 5, padding_idx=padding_idx)
        nn.init.normal_(self.embedding.weight)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.embedding(x).mean(1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding_idx", [0, -12])
def test_the_padding_row_of_an_embedding_is_a_zero_row_and_column(padding_idx, dtype):
    generator = torch.Generator().manual_seed(0)
    words, targets = torch.randint(0, 12, (37, 6), generator=generator), torch.arange(37) % 3
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = Padded(padding_idx).double()
    # the truth: the padding row of an embedding without one, frozen
    free = Padded(None).double()
    free.load_state_dict(model.state_dict())
    hessian = dense_hessian(free, words, targets)
    hessian[:5], hessian[:, :5] = 0, 0
    objective = Objective(model.to(dtype), cross_entropy, (words, targets), linearize=True)
    vectors = some_vectors(objective.n_parameters)
    product = objective.hvp(vectors.to(dtype)).double()
    assert Hessian(objective).is_traced
    torch.testing.assert_close(
        product, hessian @ vectors, rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-5
    )


class NormalisedInPlace(nn.Module):
    """Weight normalization has no forward-mode derivative; the inputs change in place."""

    def __init__(self):
        super().__init__()
        self.inner = nn.utils.parametrizations.weight_norm(nn.Linear(72, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(x.mul_(0.5).flatten(1))))


def test_the_direct_gauss_newton_product_needs_no_forward_mode_and_allows_inputs_changed_in_place():
    _, inputs, targets = build("mlp")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = NormalisedInPlace().double()
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=10, linearize=False)
    vectors = some_vectors(objective.n_parameters)
    # the truth's own passes would change the inputs again and again
    model.forward = lambda x: NormalisedInPlace.forward(model, x.clone())
    expected = dense_gauss_newton(model, inputs, targets) @ vectors
    torch.testing.assert_close(objective.ggnvp(vectors), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("budget", [0, 100_000, 10**9])
def test_what_is_kept_fits_the_memory_budget_and_changes_no_product(budget):
    model, inputs, targets = build("cnn-batchnorm-dropout")
    objective = Objective(
        model, cross_entropy, (inputs, targets), chunk_size=10, linearize=True, memory_budget=budget
    )
    vectors = some_vectors(objective.n_parameters)
    hessian = hessian_of("cnn-batchnorm-dropout")
    for _ in range(2):
        torch.testing.assert_close(objective.hvp(vectors), hessian @ vectors, rtol=1e-9, atol=1e-11)
        objective.ggnvp(vectors)
        assert objective.memory.used <= budget
    assert (objective.memory.used > 0) == (budget > 0)
    objective.release()
    assert objective.memory.used == 0


def test_an_objective_no_longer_used_frees_its_memory_at_once():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=True)
    objective.hvp(objective.theta)
    gone = weakref.ref(objective)
    gc.disable()
    try:
        del objective
        assert gone() is None
    finally:
        gc.enable()


def test_images_keep_their_layout_on_the_cpu_whatever_views_the_model_takes():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.linear = nn.Conv2d(2, 4, 3), nn.Linear(64, 3)

        def forward(self, x):
            return self.linear(self.convolution(x).view(len(x), -1))

    _, inputs, targets = build("mlp")
    model, inputs = Viewing(), inputs.float()
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=True)
    assert objective.inputs.is_contiguous()
    expected = dense_hessian(model.double(), inputs.double(), targets)
    vectors = some_vectors(objective.n_parameters)
    torch.testing.assert_close(
        objective.hvp(vectors.float()).double(), expected @ vectors, rtol=1e-3, atol=1e-5
    )
    model, inputs, targets = build("cnn-batchnorm-dropout")
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets))
    assert objective.inputs.is_contiguous()


@pytest.mark.parametrize("linearize", [False, True])
def test_parts_of_the_samples_add_up_to_the_whole(linearize):
    model, inputs, targets = build("cnn-batchnorm-dropout")
    whole = Objective(model, cross_entropy, (inputs, targets), chunk_size=10, linearize=linearize)
    wrong = torch.arange(37) % 3 == 0
    parts = [whole.subset(samples=wrong), whole.subset(samples=(~wrong).nonzero().flatten())]
    vectors = some_vectors(whole.n_parameters)
    total = sum(part.hvp(vectors) * part.n_samples for part in parts) / whole.n_samples
    torch.testing.assert_close(total, whole.hvp(vectors))
    assert [part.n_samples for part in parts] == [13, 24]


def test_parts_of_the_parameters_are_diagonal_blocks():
    model, inputs, targets = build("mlp")
    whole = Objective(model, cross_entropy, (inputs, targets), linearize=True)
    head = whole.subset(parameters=lambda name: name.startswith("3."))
    hessian = dense_hessian(model, inputs, targets)
    torch.testing.assert_close(head.hvp(torch.eye(18, dtype=torch.float64)), hessian[-18:, -18:])
    torch.testing.assert_close(whole.hvp(whole.theta), hessian @ whole.theta)
    with pytest.raises(ValueError, match="parameters"):
        whole.subset(parameters=lambda _: False)
    with pytest.raises(ValueError, match="no samples"):
        whole.subset(samples=torch.zeros(37, dtype=torch.bool))


def test_a_negative_memory_budget_is_refused():
    model, inputs, targets = build("mlp")
    with pytest.raises(ValueError, match="memory_budget"):
        Objective(model, cross_entropy, (inputs, targets), memory_budget=-1)


class Seen(TorchFunctionMode):
    """Notes for each call of some functions what `look` says then."""

    def __init__(self, functions, look):
        super().__init__()
        self.functions, self.look, self.seen = functions, look, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.functions:
            self.seen.append(self.look(args))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_do_without_cudnn_which_has_no_second_gradient_of_them(layer):
    model = Recurrent(layer).double()
    data = (torch.randn(9, 5, 4, dtype=torch.float64), torch.arange(9) % 2)
    objective = Objective(model, cross_entropy, data)
    vector = torch.randn_like(objective.theta)
    step = 1e-5 * vector
    with Seen({torch.lstm, torch.gru, torch.rnn_tanh}, lambda _: torch.backends.cudnn.enabled) as mode:
        slope = objective.gradient(objective.theta + step) - objective.gradient(objective.theta - step)
        torch.testing.assert_close(objective.hvp(vector), slope / 2e-5, rtol=1e-6, atol=1e-8)
        copy = objective.independent_model()
        copy(data[0])
    assert mode.seen
    assert not any(mode.seen)
    assert copy.layer.forward.args[0].__self__ is copy.layer
    assert torch.backends.cudnn.enabled


def test_traces_hold_no_norms_of_cudnn_which_could_not_be_folded(monkeypatch):
    model, inputs, targets = residual_images()
    objective = Objective(model, cross_entropy, (inputs, targets))
    # on a GPU this chooses cuDNN's, whatever its last argument says
    monkeypatch.delattr(torch, "batch_norm")
    product = Hessian.rule.traced
    linearized(
        lambda outputs: product(outputs, cross_entropy), objective.forward, objective.theta, inputs, targets
    )
    traced_forward(objective.forward, objective.theta, inputs)
    with pytest.raises(AttributeError):
        objective.value()


class LongInFloat64(TorchDispatchMode):
    """Counts the results in float64 that are as long as the weights."""

    def __init__(self, length):
        super().__init__()
        self.length, self.count = length, 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            self.count += result.numel() >= self.length
        return result


@pytest.mark.parametrize("linearize", [False, True])
def test_only_a_sum_of_several_chunks_is_taken_in_float64(linearize):
    model, inputs, targets = build("mlp")
    counts = []
    for chunk_size in (37, 10):
        objective = Objective(
            model.float(),
            cross_entropy,
            (inputs.float(), targets),
            chunk_size=chunk_size,
            linearize=linearize,
        )
        vector = some_vectors(objective.n_parameters)[:, 0].float()
        objective.hvp(vector)
        with LongInFloat64(objective.n_parameters) as made:
            objective.hvp(vector)
        counts.append(made.count)
    assert counts[0] == 0 < counts[1]


def test_a_copied_objective_counts_what_it_keeps_by_itself():
    model, inputs, targets = build("mlp")
    objective = Objective(model, torch.nn.CrossEntropyLoss(), (inputs, targets), linearize=True)
    vectors = some_vectors(objective.n_parameters)
    expected = objective.hvp(vectors)
    copied = copy.deepcopy(objective)
    assert copied.memory.used == 0
    torch.testing.assert_close(copied.hvp(vectors), expected)
    assert copied.memory.used == objective.memory.used > 0
