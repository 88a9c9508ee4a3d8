import dataclasses
import gc
import linecache
import shutil
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.fx import graph_module
from torch.overrides import TorchFunctionMode

from landscape import GaussNewton, Hessian, Objective, filter_normalized_directions, surface
from landscape.fx.forward import traced_forward
from landscape.fx.linearize import linearized
from tests.conftest import Recurrent, build, dense_gauss_newton, dense_hessian

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


def some_vectors(n, k=3, dtype=torch.float64):
    return torch.randn(n, k, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("linearize", [False, True])
@pytest.mark.parametrize("chunk_size", [10, 37])
def test_products_are_those_of_the_dense_matrices(case, chunk_size, linearize):
    model, inputs, targets = case
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=chunk_size, linearize=linearize)
    vectors = some_vectors(objective.n_parameters)
    hessian = dense_hessian(model, inputs, targets)
    gauss_newton = dense_gauss_newton(model, inputs, targets)
    torch.testing.assert_close(objective.hvp(vectors), hessian @ vectors, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(objective.hvp(vectors[:, 0]), hessian @ vectors[:, 0], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(objective.ggnvp(vectors), gauss_newton @ vectors, rtol=1e-9, atol=1e-11)


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


def test_a_traced_product_that_is_wrong_by_half_a_percent_is_found_out_in_float64(monkeypatch):
    model, inputs, targets = build("mlp")

    rule = Hessian.rule

    def slightly_wrong(outputs, loss_fn):
        product = rule.traced(outputs, loss_fn)
        return lambda theta, vector, x, y: product(theta, vector, x, y) * 1.005

    monkeypatch.setattr(Hessian, "rule", dataclasses.replace(rule, traced=slightly_wrong))
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=True)
    with pytest.raises(RuntimeError, match="differs from the direct one"):
        objective.hvp(objective.theta)


class NormalisedInPlace(nn.Module):
    """Weight normalization has no forward-mode derivative; the inputs change in place."""

    def __init__(self):
        super().__init__()
        self.inner = nn.utils.parametrizations.weight_norm(nn.Linear(72, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(x.mul_(0.5).flatten(1))))


def test_a_traced_product_that_is_wrong_in_one_column_is_found_out_by_vectors_that_are_0_there(monkeypatch):
    model, inputs, targets = build("mlp")

    rule = Hessian.rule

    def wrong_in_the_last_column(outputs, loss_fn):
        product = rule.traced(outputs, loss_fn)
        return lambda theta, vector, x, y: product(theta, vector, x, y) + vector[-1]

    monkeypatch.setattr(Hessian, "rule", dataclasses.replace(rule, traced=wrong_in_the_last_column))
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=True)
    first = torch.zeros_like(objective.theta)
    first[0] = 1
    with pytest.raises(RuntimeError, match="differs from the direct one"):
        objective.hvp(first)


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


LOSSES = {
    "label smoothing": nn.CrossEntropyLoss(label_smoothing=0.1),
    "mean squared error of the softmax": lambda z, y: (
        (z.softmax(1) - nn.functional.one_hot(y, 3)).square().mean()
    ),
    "smooth L1 of the softmax": lambda z, y: nn.functional.smooth_l1_loss(
        z.softmax(1), nn.functional.one_hot(y, 3).double()
    ),
    "linear in the outputs": lambda z, y: z.gather(1, y.unsqueeze(1)).mean(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_any_loss_has_its_traced_products(name):
    model, inputs, targets = build("mlp")
    direct = Objective(model, LOSSES[name], (inputs, targets), linearize=False)
    traced = Objective(model, LOSSES[name], (inputs, targets), linearize=True, chunk_size=10)
    vectors = some_vectors(direct.n_parameters)
    torch.testing.assert_close(traced.hvp(vectors), direct.hvp(vectors), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(traced.ggnvp(vectors), direct.ggnvp(vectors), rtol=1e-9, atol=1e-12)


def test_traced_products_follow_the_weights_also_when_these_change_in_place():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=True)
    direct = Objective(model, cross_entropy, (inputs, targets), linearize=False)
    vectors = some_vectors(objective.n_parameters)
    theta = objective.theta.clone()
    for _ in range(3):
        theta.add_(0.1)
        torch.testing.assert_close(objective.hvp(vectors, theta), direct.hvp(vectors, theta))
    torch.testing.assert_close(objective.hvp(vectors), direct.hvp(vectors))


@pytest.mark.parametrize("budget", [0, 100_000, 10**9])
def test_what_is_kept_fits_the_memory_budget_and_changes_no_product(budget):
    model, inputs, targets = build("cnn-batchnorm-dropout")
    objective = Objective(
        model, cross_entropy, (inputs, targets), chunk_size=10, linearize=True, memory_budget=budget
    )
    vectors = some_vectors(objective.n_parameters)
    hessian = dense_hessian(model, inputs, targets)
    for _ in range(2):
        torch.testing.assert_close(objective.hvp(vectors), hessian @ vectors, rtol=1e-9, atol=1e-11)
        objective.ggnvp(vectors)
        assert objective.kept_bytes <= budget
    assert (objective.kept_bytes > 0) == (budget > 0)
    objective.release()
    assert objective.kept_bytes == 0


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


def test_traced_graphs_leave_no_source_behind():
    model, inputs, targets = build("mlp")
    before = set(graph_module._loader.eval_cache), set(linecache.cache)
    for _ in range(2):
        objective = Objective(model, cross_entropy, (inputs, targets), linearize=True)
        vector = some_vectors(objective.n_parameters)
        expected = Objective(model, cross_entropy, (inputs, targets), linearize=False).hvp(vector)
        torch.testing.assert_close(objective.hvp(vector), expected)
        surface(objective, filter_normalized_directions(objective, 2, seed=0), steps=5)
    assert set(graph_module._loader.eval_cache) == before[0]
    assert not any("eval_with_key" in name for name in set(linecache.cache) - before[1])


def test_a_model_that_cannot_be_traced_stays_on_the_direct_way_and_says_so(monkeypatch):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(72, 3).double()

        def forward(self, x):
            z = self.linear(x.flatten(1))
            return z.tanh() if self.linear.weight.sum() > 0 else z.sin()

    monkeypatch.setattr("landscape.matrices.products.TRACING_FLOPS", {"cpu": 0.0})
    _, inputs, targets = build("mlp")
    model = Branching()
    objective = Objective(model, cross_entropy, (inputs, targets))
    vectors = some_vectors(objective.n_parameters)
    with pytest.warns(UserWarning, match="cannot be traced"):
        product = objective.hvp(vectors)
    torch.testing.assert_close(product, dense_hessian(model, inputs, targets) @ vectors)
    with pytest.raises(RuntimeError):
        Objective(model, cross_entropy, (inputs, targets), linearize=True).hvp(vectors)


def test_a_value_baked_into_the_trace_is_found_out(monkeypatch):
    class Counting(nn.Module):
        """Another function at each call once it counts, which a trace would freeze."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(72, 3).double()
            self.calls, self.counts = 1, False

        def forward(self, x):
            self.calls += self.counts
            return self.linear(x.flatten(1)) * self.calls

    monkeypatch.setattr("landscape.matrices.products.TRACING_FLOPS", {"cpu": 0.0})
    _, inputs, targets = build("mlp")
    objective = Objective(Counting(), cross_entropy, (inputs, targets))
    objective.model.counts = True
    with pytest.warns(UserWarning, match="differs from the direct one"):
        objective.hvp(objective.theta)


def test_a_loss_over_a_mask_whose_size_depends_on_the_data_stays_on_the_direct_way(monkeypatch):
    def hinge(outputs, targets):
        margin = outputs.gather(1, targets.unsqueeze(1)).squeeze(1)
        return margin[margin > 0].square().sum() / len(margin)

    monkeypatch.setattr("landscape.matrices.products.TRACING_FLOPS", {"cpu": 0.0})
    model, inputs, targets = build("mlp")
    objective = Objective(model, hinge, (inputs, targets), chunk_size=10)
    direct = Objective(model, hinge, (inputs, targets), chunk_size=10, linearize=False)
    with pytest.warns(UserWarning, match="depends on the data"):
        product = objective.hvp(objective.theta)
    torch.testing.assert_close(product, direct.hvp(direct.theta))


def test_few_products_take_the_direct_way_and_many_are_traced(monkeypatch):
    model, inputs, targets = build("mlp")
    monkeypatch.setattr(
        "landscape.matrices.products.TRACING_FLOPS", {"cpu": 7 * 5 * 2 * 37 * (72 * 5 + 5 * 3)}
    )
    objective = Objective(model, cross_entropy, (inputs, targets))
    ways = []
    for _ in range(7):
        objective.hvp(objective.theta)
        ways.append(Hessian(objective).is_traced)
    assert ways == [False] * 4 + [True] * 3


def test_products_that_are_expected_are_traced_at_once(monkeypatch):
    model, inputs, targets = build("mlp")
    monkeypatch.setattr(
        "landscape.matrices.products.TRACING_FLOPS", {"cpu": 7 * 5 * 2 * 37 * (72 * 5 + 5 * 3)}
    )
    objective = Objective(model, cross_entropy, (inputs, targets))
    Hessian(objective).expect(5)
    objective.hvp(objective.theta)
    assert Hessian(objective).is_traced
    assert not GaussNewton(objective).is_traced


def test_nan_in_the_loss_stays_nan_in_the_traced_product():
    model, inputs, targets = build("mlp")
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=True)
    assert objective.hvp(some_vectors(objective.n_parameters)).isnan().any()


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


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_products_are_the_same():
    model, inputs, targets = build("mlp")
    objective = Objective(
        model, cross_entropy, (inputs, targets), linearize=True, compile_mode="default", chunk_size=37
    )
    vectors = some_vectors(objective.n_parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        product = objective.hvp(vectors)
    torch.testing.assert_close(product, dense_hessian(model, inputs, targets) @ vectors)


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


def test_products_of_cuda_graphs_are_taken_before_the_next_overwrites_them(monkeypatch):
    def graphed(function, mode):
        results = []

        def replayed(*arguments):
            results.append(function(*arguments))
            return results[0].copy_(results[-1])

        return replayed

    monkeypatch.setattr(torch, "compile", graphed)
    model, inputs, targets = build("mlp")
    objective = Objective(
        model, cross_entropy, (inputs, targets), linearize=True, compile_mode="reduce-overhead"
    )
    vectors = some_vectors(objective.n_parameters)
    torch.testing.assert_close(objective.hvp(vectors), dense_hessian(model, inputs, targets) @ vectors)
