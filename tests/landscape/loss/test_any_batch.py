"""Any model, any batch: losses, derivatives and measures against those of the whole data at once, in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_sequence

from landscape import (
    Objective,
    average_sharpness,
    filter_normalized_directions,
    layer_traces,
    sharpness,
    spectral_density,
    surface,
    tasks,
    top_eigenvalues,
    trace,
)
from landscape.evaluation.evaluator import Evaluator

D = torch.float64


def draws(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


@dataclasses.dataclass
class Case:
    """An Objective, and the same loss of all data at once as a function of {name: parameter}, without the package."""

    objective: Objective
    truth: object
    has_outputs: bool = True


class Words(nn.Module):
    """Scores of the next word at each position, from the words before and a mask."""

    def __init__(self):
        super().__init__()
        self.words, self.hidden, self.head = (
            nn.Embedding(7, 4),
            nn.GRU(4, 4, batch_first=True),
            nn.Linear(4, 7),
        )

    def forward(self, ids, mask=None):
        embedded = self.words(ids)
        if mask is not None:
            embedded = embedded * mask.unsqueeze(2)
        return {"logits": self.head(torch.tanh(embedded.cumsum(1))), "ids": ids}


def language(cut):
    """Ragged sequences whose padding is ignored; the mean is over tokens."""
    torch.manual_seed(0)
    model = Words().to(D)
    del model.hidden
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 7, (11, 6), generator=generator)
    lengths = torch.randint(1, 7, (11, 1), generator=generator)
    mask = (torch.arange(6) < lengths).to(D)
    labels = ids.roll(-1, 1).masked_fill(mask == 0, -100)
    batches = [
        {"ids": i, "mask": m, "labels": t}
        for i, m, t in zip(ids.split(cut), mask.split(cut), labels.split(cut), strict=True)
    ]

    def loss(outputs, batch):
        return nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), batch["labels"].flatten())

    objective = Objective(model, loss, batches, chunk_size=3, **tasks.tokens())

    def truth(weights):
        logits = functional_call(model, weights, (ids, mask))["logits"]
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    return Case(objective, truth)


def network(inputs=4, outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs)).to(D)


def pinn():
    """Derivatives in the loss; interior and boundary points are of different numbers."""
    model, interior, boundary = network(2, 1), draws(13, 2).requires_grad_(False), draws(4, 2, seed=1)

    def of(model, points, border):
        points = points.detach().requires_grad_()
        (slope,) = torch.autograd.grad(model(points).sum(), points, create_graph=True)
        return (slope.sum(1) - points.prod(1)).square().mean() + model(border).square().mean()

    objective = Objective.of_loss(
        lambda model, batch: of(model, *batch), model, (interior, boundary), count=lambda batch: len(batch[0])
    )
    return Case(
        objective,
        lambda weights: of(lambda x: functional_call(model, weights, (x,)), interior, boundary),
        has_outputs=False,
    )


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(2, 4)

    def forward(self, x, noise):
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return self.decoder(torch.tanh(mean + noise * (log_variance / 2).exp())), mean, log_variance


def variational():
    """Two losses; the noise is a part of the batch."""
    torch.manual_seed(0)
    model, x, noise = Autoencoder().to(D), draws(10, 4), draws(10, 2, seed=1)

    def loss(outputs, batch):
        decoded, mean, log_variance = outputs
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
        return ((decoded - batch["x"]).square().sum(1) + divergence).mean()

    data = [{"x": a, "noise": b} for a, b in zip(x.split(4), noise.split(4), strict=True)]
    return Case(
        Objective(model, loss, data),
        lambda weights: loss(functional_call(model, weights, (x, noise)), {"x": x}),
    )


class Boxes(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 5)

    def forward(self, images):
        return [torch.tanh(self.inner(image)) for image in images]


def boxes():
    """Lists of images of different sizes, with as many boxes each."""
    torch.manual_seed(0)
    model, sizes = Boxes().to(D), (3, 1, 5, 2)
    images, targets = [draws(n, 4, seed=n) for n in sizes], [draws(n, 5, seed=n + 9) for n in sizes]

    def loss(outputs, targets):
        return torch.cat([(o - t).square().mean(1) for o, t in zip(outputs, targets, strict=True)]).mean()

    batches = [(images[:2], targets[:2]), (images[2:], targets[2:])]
    objective = Objective(model, loss, batches, count=lambda batch: sum(len(t) for t in batch[1]))
    return Case(objective, lambda weights: loss(functional_call(model, weights, (images,)), targets))


class Graph:
    """A batch that is no tree of tensors."""

    def __init__(self, nodes, edges, labels):
        self.nodes, self.edges, self.labels = nodes, edges, labels


def graphs():
    model = network()
    parts = [
        Graph(
            draws(n, 4, seed=n),
            torch.randint(0, n, (2, 6), generator=torch.Generator().manual_seed(n)),
            torch.arange(n) % 3,
        )
        for n in (5, 8)
    ]

    def forward(model, graph):
        spread = graph.nodes.index_add(0, graph.edges[1], graph.nodes[graph.edges[0]])
        return model(spread)

    def loss(outputs, graph):
        return nn.functional.cross_entropy(outputs, graph.labels)

    objective = Objective(model, loss, parts, forward=forward, count=lambda graph: len(graph.labels))
    spread = torch.cat([forward(lambda x: x, graph) for graph in parts])
    labels = torch.cat([graph.labels for graph in parts])
    return Case(
        objective,
        lambda weights: nn.functional.cross_entropy(functional_call(model, weights, (spread,)), labels),
    )


def packed():
    """Sequences of different lengths, packed."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.LSTM(2, 3), nn.Linear(3, 2)

        def forward(self, sequences):
            return self.head(self.layer(sequences)[1][0][-1])

    torch.manual_seed(0)
    model = Last().to(D)
    sequences, labels = [draws(n, 2, seed=n) for n in (5, 3, 2)], torch.tensor([0, 1, 1])
    data = [(pack_sequence(sequences[:2]), labels[:2]), (pack_sequence(sequences[2:]), labels[2:])]
    objective = Objective(model, nn.CrossEntropyLoss(), data, count=lambda batch: len(batch[1]))

    def truth(weights):
        outputs = torch.cat([functional_call(model, weights, (pack_sequence([each]),)) for each in sequences])
        return nn.functional.cross_entropy(outputs, labels)

    return Case(objective, truth)


def penalized():
    """A weight penalty as a regularizer, and class weights."""
    model, x, y = network(), draws(12, 4), torch.arange(12) % 3
    weights_of_classes = torch.tensor([1.0, 2.0, 9.0], dtype=D)

    def penalty(parameters):
        return 0.3 * sum(p.square().sum() for name, p in parameters.items() if name.endswith("weight"))

    weighted = nn.CrossEntropyLoss(weight=weights_of_classes)
    objective = Objective(model, weighted, (x, y), chunk_size=5, regularizer=penalty)
    return Case(
        objective, lambda weights: weighted(functional_call(model, weights, (x,)), y) + penalty(weights)
    )


def sample_weights():
    model, x, y, w = network(4, 1), draws(12, 4), draws(12, 1, seed=1), draws(12, seed=2).square()

    def loss(outputs, batch):
        return (batch[2] * (outputs - batch[1]).square()[:, 0]).sum() / batch[2].sum()

    objective = Objective(
        model,
        loss,
        (x, y, w),
        forward=lambda model, batch: model(batch[0]),
        count=lambda batch: batch[2].sum(),
        chunk_size=5,
    )
    return Case(objective, lambda weights: loss(functional_call(model, weights, (x,)), (x, y, w)))


CASES = {
    "language, cut in 4": lambda: language(4),
    "language, cut in 1": lambda: language(1),
    "pinn": pinn,
    "variational": variational,
    "boxes": boxes,
    "graphs": graphs,
    "packed": packed,
    "penalized": penalized,
    "sample weights": sample_weights,
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]()


def dense(case):
    """Loss, gradient and Hessian of the whole data at once."""
    objective = case.objective

    def of_vector(theta):
        return case.truth(objective.unflatten(theta))

    theta = objective.theta
    with torch.enable_grad():
        gradient = torch.autograd.functional.jacobian(of_vector, theta)
        hessian = torch.autograd.functional.hessian(of_vector, theta)
    return of_vector(theta).detach(), gradient, hessian


def test_loss_gradient_and_hessian_are_those_of_all_data_at_once(case):
    objective = case.objective
    loss, gradient, hessian = dense(case)
    assert objective.value() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(objective.gradient(), gradient, rtol=1e-10, atol=1e-12)
    block = draws(objective.n_parameters, 2)
    torch.testing.assert_close(objective.hvp(block), hessian @ block, rtol=1e-9, atol=1e-11)


def test_measures_work_on_any_objective(case):
    objective = case.objective
    _, gradient, hessian = dense(case)
    values = torch.linalg.eigvalsh(hessian).numpy()
    n = objective.n_parameters
    eigen = top_eigenvalues(objective, 1, tol=1e-6, max_products=n)
    largest = values[np.abs(values).argmax()]
    assert eigen.values[0] == pytest.approx(largest, rel=1e-6)
    found = trace(objective, rtol=None, max_products=2 * n)
    assert found.value == pytest.approx(values.sum(), rel=1e-6, abs=1e-6 * np.abs(values).sum())
    assert layer_traces(objective, rtol=None, max_products=8).values.shape == (len(objective.names),)
    assert spectral_density(objective, seed=0).samples == objective.n_samples
    directions = filter_normalized_directions(objective, 2, seed=0)
    plane = surface(objective, directions, steps=5)
    corner = (
        objective.theta + plane.alpha[0] * directions.vectors[:, 0] + plane.beta[4] * directions.vectors[:, 1]
    )
    assert plane.loss[0, 4] == pytest.approx(case.truth(objective.unflatten(corner)).item(), rel=1e-10)
    small = sharpness(objective, rho=1e-5)
    assert small.value == pytest.approx(1e-5 * gradient.norm().item(), rel=1e-3)
    average_sharpness(objective, sigma=0.01, max_draws=8)


def test_the_gauss_newton_matrix_is_that_of_all_outputs_at_once():
    case = language(4)
    objective = case.objective
    batch = objective.inputs
    kept = batch["labels"] != -100

    def scores(theta):
        return objective.forward(
            theta, {k: v for k, v in batch.items() if k != "labels"} | {"labels": batch["labels"]}
        )["logits"][kept]

    jacobian = torch.autograd.functional.jacobian(scores, objective.theta)
    p = scores(objective.theta).softmax(1).detach()
    curvature = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    expected = torch.einsum("icn,icd,idm->nm", jacobian, curvature, jacobian) / len(p)
    eye = torch.eye(objective.n_parameters, dtype=D)
    torch.testing.assert_close(objective.ggnvp(eye), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("make", [variational, sample_weights, penalized])
def test_traced_products_are_the_direct_ones(make):
    objective = make().objective
    block = draws(objective.n_parameters, 2)
    direct = objective.hvp(block), objective.ggnvp(block)
    objective = make().objective
    objective.linearize = True
    torch.testing.assert_close(objective.hvp(block), direct[0])
    torch.testing.assert_close(objective.ggnvp(block), direct[1])


def test_a_loss_without_outputs_has_no_gauss_newton_matrix():
    objective = pinn().objective
    with pytest.raises(ValueError, match="matrix: the Gauss-Newton matrix needs outputs"):
        objective.ggnvp(objective.theta)
    with pytest.raises(ValueError, match="matrix: the Gauss-Newton matrix needs outputs"):
        trace(objective, matrix="gauss-newton")


TORCHS_OWN = {
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "class weights": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 9.0], dtype=D)),
    "an ignored class": nn.CrossEntropyLoss(ignore_index=2),
    "weights, smoothing, an ignored class": nn.CrossEntropyLoss(
        weight=torch.tensor([1.0, 2.0, 9.0], dtype=D), label_smoothing=0.2, ignore_index=0
    ),
    "the function": nn.functional.cross_entropy,
}


@pytest.mark.parametrize("name", TORCHS_OWN)
@pytest.mark.parametrize("chunk_size", [1, 5, 512])
def test_torchs_own_losses_are_those_of_all_samples_at_once(name, chunk_size):
    model, x, y = network(), draws(13, 4), torch.tensor([0, 1, 2, 2, 2, 1, 0, 1, 2, -100, -100, 1, 1])
    if name not in ("the function", "sum", "class weights"):
        y = y.clamp(min=0)
    loss_fn = TORCHS_OWN[name]
    objective = Objective(model, loss_fn, (x, y), chunk_size=chunk_size)
    case = Case(objective, lambda weights: loss_fn(functional_call(model, weights, (x,)), y))
    loss, gradient, hessian = dense(case)
    assert objective.value() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(objective.gradient(), gradient, rtol=1e-10, atol=1e-12)
    block = draws(objective.n_parameters, 2)
    torch.testing.assert_close(objective.hvp(block), hessian @ block, rtol=1e-9, atol=1e-11)
    values = Evaluator({"all": objective}, [block[:, 0]], errors=True, expected=25)(np.array([[0.0], [0.5]]))
    moved = case.truth(objective.unflatten(objective.theta + 0.5 * block[:, 0]))
    assert values.loss[1, 0] == pytest.approx(moved.item(), rel=1e-10)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("make", [nn.MSELoss, nn.SmoothL1Loss])
def test_torchs_own_losses_of_rows_of_entries_are_those_of_all_samples_at_once(make, reduction):
    model, x, y, loss_fn = network(), draws(13, 4), draws(13, 3, seed=1), make(reduction=reduction)
    objective = Objective(model, loss_fn, (x, y), chunk_size=5)
    assert objective.value() == pytest.approx(loss_fn(model(x), y).item(), rel=1e-12)


def test_standard_errors_of_a_counted_mean_are_those_of_redrawn_samples():
    """The spread of the weighted mean over bootstrap samples, to the 5% that 2,000 of them allow."""
    model, x, y = (
        network(),
        draws(300, 4),
        torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(3)),
    )
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 9.0], dtype=D))
    found = Evaluator({"all": Objective(model, weighted, (x, y))}, [], errors=True, expected=1).center
    with torch.no_grad():
        losses = nn.functional.cross_entropy(model(x), y, reduction="none")
    w = weighted.weight[y]
    rows = torch.randint(0, 300, (2000, 300), generator=torch.Generator().manual_seed(4))
    means = (w[rows] * losses[rows]).sum(1) / w[rows].sum(1)
    assert found.loss_error[0, 0] == pytest.approx(means.std().item(), rel=0.1)


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (
            lambda batch: len(batch["labels"]),
            "^loss_fn: is not the mean over the samples, as they are counted",
        ),
        (lambda _: float("nan"), "^count: must be finite"),
        (lambda batch: batch["mask"].sum() ** 2, "^count: .* samples count for"),
    ],
)
def test_a_count_that_is_not_the_losses_own_is_refused(count, says):
    objective = language(4).objective
    with pytest.raises(ValueError, match=says):
        Objective(
            objective.independent_model(),
            objective.loss_fn,
            objective.inputs,
            forward=tasks.tokens()["forward"],
            count=count,
        )


def test_batches_that_cannot_be_cut_must_be_counted():
    with pytest.raises(ValueError, match="^count: the tensors of a batch do not share their first size"):
        Objective(network(), nn.MSELoss(), [([draws(2, 4), draws(1, 4)], [draws(2, 3), draws(1, 3)])])


def test_a_loss_that_is_random_is_refused():
    def noisy(model, batch):
        return model(batch[0]).square().mean() + 0.01 * torch.rand(())

    with pytest.raises(ValueError, match="^model: the loss of one batch is .* in one run"):
        Objective.of_loss(noisy, network(), [(draws(4, 4), draws(4, 3))])


def test_a_regularizer_of_the_callers_weights_is_refused():
    model = network()
    with pytest.raises(ValueError, match=r"^regularizer: depends on the caller's own parameters '0\.weight'"):
        Objective(
            model,
            nn.MSELoss(),
            (draws(5, 4), draws(5, 3)),
            regularizer=lambda _: sum(p.square().sum() for p in model.parameters()),
        )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        nn.DataParallel,
        lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    ],
)
def test_wrappers_are_taken_off(wrap):
    model, data = network(), (draws(9, 4), draws(9, 3, seed=1))
    right, found = (Objective(each, nn.MSELoss(), data) for each in (model, wrap(model)))
    assert found.names == right.names
    vector = draws(right.n_parameters)
    assert torch.equal(found.hvp(vector), right.hvp(vector))


def test_recomputed_weights_stay_right():
    torch.manual_seed(0)
    model = nn.Sequential(weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).to(D)
    x, y = draws(9, 4), draws(9, 3, seed=1)
    objective = Objective.of_loss(lambda m, batch: (m(batch[0]) - batch[1]).square().mean(), model, (x, y))
    same = Objective(model, nn.MSELoss(), (x, y))
    vector = draws(same.n_parameters)
    torch.testing.assert_close(objective.hvp(vector), same.hvp(vector))
