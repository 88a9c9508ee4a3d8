"""Products whose graph is traced: when they are, and that they are those of direct products."""

import dataclasses
import linecache
import shutil
import warnings

import pytest
import torch
from torch import nn
from torch.fx import graph_module

from landscape import GaussNewton, Hessian, Objective, filter_normalized_directions, surface
from landscape.fx.tracing import traced
from landscape.matrices.traced_products import TracedProducts
from tests.conftest import build, dense_hessian, some_vectors

cross_entropy = nn.CrossEntropyLoss()


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


def test_traced_products_refuse_data_that_torch_changes_in_place():
    model, inputs, targets = build("mlp")
    vectors = some_vectors(383)
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=True)
    objective.hvp(vectors)
    inputs.mul_(2)
    with pytest.raises(ValueError, match=r"^data: were changed in place"):
        objective.hvp(vectors)


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


def test_a_model_that_cannot_be_traced_stays_on_the_direct_way_and_says_so(traced_at_once):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(72, 3).double()

        def forward(self, x):
            z = self.linear(x.flatten(1))
            return z.tanh() if self.linear.weight.sum() > 0 else z.sin()

    _, inputs, targets = build("mlp")
    model = Branching()
    objective = Objective(model, cross_entropy, (inputs, targets))
    vectors = some_vectors(objective.n_parameters)
    with pytest.warns(UserWarning, match="cannot be traced"):
        product = objective.hvp(vectors)
    torch.testing.assert_close(product, dense_hessian(model, inputs, targets) @ vectors)
    with pytest.raises(
        RuntimeError, match=r"linearize: these products cannot be traced: .*leave linearize=True out"
    ):
        Objective(model, cross_entropy, (inputs, targets), linearize=True).hvp(vectors)


def test_a_trace_that_fails_within_torch_leaves_autograd_switched_on():
    class Quantile(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(72, 3).double()

        def forward(self, x):
            z = self.linear(x.flatten(1))
            return z * z.quantile(0.3, 1, keepdim=True)

    _, inputs, targets = build("mlp")
    model = Quantile()
    vectors = some_vectors(sum(weight.numel() for weight in model.parameters()))
    with pytest.raises(RuntimeError, match="cannot be traced"):
        Objective(model, cross_entropy, (inputs, targets), linearize=True).hvp(vectors)
    assert model(inputs).requires_grad
    product = Objective(model, cross_entropy, (inputs, targets), linearize=False).hvp(vectors)
    torch.testing.assert_close(product, dense_hessian(model, inputs, targets) @ vectors)


def test_outputs_with_whole_numbers_beside_the_scores_are_direct_and_traced_ones_are_refused_with_the_remedy():
    class WithPredictions(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3).double()

        def forward(self, x):
            scores = torch.tanh(self.linear(x))
            return scores, scores.argmax(1)

    def loss(outputs, batch):
        return cross_entropy(outputs[0], batch[1])

    batch = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3
    model = WithPredictions()
    options = {"forward": lambda model, batch: model(batch[0])}
    vectors = some_vectors(15)
    alone = Objective(nn.Sequential(model.linear, nn.Tanh()), cross_entropy, batch)
    for product in (Objective.hvp, Objective.ggnvp):
        direct = Objective(model, loss, batch, **options)
        torch.testing.assert_close(product(direct, vectors), product(alone, vectors))
        with pytest.raises(
            RuntimeError, match=r"linearize: .*return the scores alone.*leave linearize=True out"
        ):
            product(Objective(model, loss, batch, linearize=True, **options), vectors)


def test_outputs_that_are_whole_numbers_alone_have_no_gauss_newton_matrix():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            return self.linear(x).argmax(1)

    batch = torch.randn(9, 4), torch.arange(9) % 3
    objective = Objective(Counted(), lambda found, wanted: (found != wanted).float().mean(), batch)
    assert objective.gradient().norm() == 0
    with pytest.raises(
        TypeError, match=r"forward: its outputs hold no floating-point tensor, but torch.int64"
    ):
        objective.ggnvp(objective.theta)


def test_a_value_baked_into_the_trace_is_found_out(traced_at_once):
    class Counting(nn.Module):
        """Another function at each call once it counts, which a trace would freeze."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(72, 3).double()
            self.calls, self.counts = 1, False

        def forward(self, x):
            self.calls += self.counts
            return self.linear(x.flatten(1)) * self.calls

    _, inputs, targets = build("mlp")
    objective = Objective(Counting(), cross_entropy, (inputs, targets))
    # the first pass looks at the data, and would refuse
    objective.value()
    objective.model.counts = True
    with pytest.warns(UserWarning, match="differs from the direct one"):
        objective.hvp(objective.theta)


def test_a_loss_over_a_mask_whose_size_depends_on_the_data_stays_on_the_direct_way(traced_at_once):
    def hinge(outputs, targets):
        margin = outputs.gather(1, targets.unsqueeze(1)).squeeze(1)
        return margin[margin > 0].square().sum() / len(margin)

    model, inputs, targets = build("mlp")
    objective = Objective(model, hinge, (inputs, targets), chunk_size=10)
    direct = Objective(model, hinge, (inputs, targets), chunk_size=10, linearize=False)
    with pytest.warns(UserWarning, match="depends on the data"):
        product = objective.hvp(objective.theta)
    torch.testing.assert_close(product, direct.hvp(direct.theta))


@pytest.fixture
def counted(monkeypatch):
    """A product is one operation. Five past ones speak for more, and eight announced ones repay a trace."""
    monkeypatch.setattr("landscape.matrices.worth_tracing.counted_work", lambda _: (1 / 7, 0))
    monkeypatch.setattr("landscape.matrices.worth_tracing.SPENT_FLOPS", {"cpu": 5.0})


def test_few_products_take_the_direct_way_and_many_are_traced(counted):
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), linearize="counted")
    ways = []
    for _ in range(7):
        objective.hvp(objective.theta)
        ways.append(Hessian(objective).is_traced)
    assert ways == [False] * 4 + [True] * 3


def test_products_that_are_expected_are_traced_at_once_if_they_repay_it(counted):
    model, inputs, targets = build("mlp")
    for announced, is_traced in ((7, False), (8, True)):
        objective = Objective(model, cross_entropy, (inputs, targets), linearize="counted")
        Hessian(objective).expect(announced)
        objective.hvp(objective.theta)
        assert Hessian(objective).is_traced == is_traced
        assert not GaussNewton(objective).is_traced


def test_an_announcement_takes_the_place_of_what_is_left_of_the_one_before(counted):
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), linearize="counted")
    for _ in range(3):
        Hessian(objective).expect(7)
        objective.hvp(objective.theta)
    assert not Hessian(objective).is_traced


def test_nan_in_the_loss_stays_nan_in_the_traced_product():
    model, inputs, targets = build("mlp")
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=True)
    assert objective.hvp(some_vectors(objective.n_parameters)).isnan().any()


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


def test_the_error_that_the_caller_handles_keeps_its_frames():
    def fails(theta):
        raise RuntimeError("cannot be traced")

    def of_the_caller():
        held = "what a debugger shows"
        raise ValueError(held)

    try:
        of_the_caller()
    except ValueError as error:
        with pytest.raises(RuntimeError, match="cannot be traced"):
            traced(fails, torch.ones(2))
        left = error.__traceback__.tb_next.tb_frame.f_locals
    assert left == {"held": "what a debugger shows"}


class Filtered(nn.Module):
    """A filter in frequency space, as GFNet has it: a real parameter (..., 2) viewed as complex, at an odd place."""

    def __init__(self, as_complex=torch.view_as_complex):
        super().__init__()
        torch.manual_seed(0)
        self.as_complex = as_complex
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.pairs = nn.Parameter(torch.randn(3, 2, dtype=torch.float64))
        self.inner, self.head = nn.Linear(5, 4).double(), nn.Linear(4, 3).double()

    def forward(self, x):
        spectrum = torch.fft.rfft(self.inner(x)) * self.as_complex(self.pairs)
        return self.head(torch.tanh(torch.fft.irfft(spectrum, n=4))) * self.scale


@pytest.mark.parametrize("linearize", [False, True])
@pytest.mark.parametrize("budget", [2 * 1024**3, 2048])
def test_pairs_viewed_as_complex_are_multiplied_wherever_they_lie(linearize, budget):
    inputs = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = inputs, torch.arange(8) % 3
    objective = Objective(Filtered(), cross_entropy, data, linearize=linearize, memory_budget=budget)
    truth = dense_hessian(Filtered(lambda pairs: torch.complex(*pairs.T)), *data)
    vectors = some_vectors(len(truth), 3)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="model|linearize")
        # a vector first, so that the way is chosen before a block comes
        found = [objective.hvp(vectors[:, 0])[:, None], objective.hvp(vectors)]
    torch.testing.assert_close(torch.cat(found, 1), truth @ torch.cat([vectors[:, :1], vectors], 1))


def test_a_block_is_multiplied_by_single_vectors_where_vmap_lacks_an_operation(monkeypatch):
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=True)
    vectors = some_vectors(objective.n_parameters, 3)
    right = Hessian(objective) @ vectors

    def lacking(_):
        def raises(_):
            raise RuntimeError("vmap: has no batching rule")

        return raises

    monkeypatch.setattr("landscape.matrices.traced_products.vmap", lacking)
    torch.testing.assert_close(Hessian(objective) @ vectors, right)


@pytest.mark.usefixtures("traced_at_once")
def test_chunks_of_another_form_that_cannot_be_traced_make_all_products_direct(monkeypatch):
    of_chunk = TracedProducts.of_chunk

    def of_whole_chunks(self, theta, chunk, index, rows):
        if chunk.samples < 10:
            raise RuntimeError("has no such form")
        return of_chunk(self, theta, chunk, index, rows)

    model, inputs, targets = build("mlp")
    objective = Objective(
        model, cross_entropy, (inputs[:15], targets[:15]), chunk_size=10, linearize="counted"
    )
    monkeypatch.setattr(TracedProducts, "of_chunk", of_whole_chunks)
    vectors = some_vectors(objective.n_parameters, 2)
    matrix = Hessian(objective)
    with pytest.warns(UserWarning, match="cannot be traced: has no such form"):
        found = matrix @ vectors
    assert not matrix.is_traced
    torch.testing.assert_close(found, dense_hessian(model, inputs[:15], targets[:15]) @ vectors)
