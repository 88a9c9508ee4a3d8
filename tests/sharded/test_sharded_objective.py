"""Models that FSDP2 shards over two ranks, against dense matrices and plain torch on all the data in one process."""

import re
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from bench.sharded import counts
from landscape import (
    EmpiricalFisher,
    Objective,
    Tracker,
    filter_normalized_directions,
    line,
    sharpness,
    spectral_density,
    top_eigenvalues,
    trace,
)
from tests.ranks import fully_sharded, keeps_weights
from tests.sharded.refusals import refusal

INPUTS = torch.randn(38, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.randint(3, (38,), generator=torch.Generator().manual_seed(1))
SHARES = (slice(0, 20), slice(20, 38))
ALPHA = [-0.5, 0.0, 1.0]
loss_fn = nn.CrossEntropyLoss()


class Cube(torch.autograd.Function):
    """x^3 by NumPy, of which torch knows no second derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, slope):
        return slope * torch.from_numpy(3 * ctx.saved_tensors[0].numpy() ** 2)


class Cubed(nn.Module):
    """x^3, with a second derivative or without."""

    def __init__(self, twice):
        super().__init__()
        self.twice = twice

    def forward(self, x):
        return x**3 if self.twice else Cube.apply(x)


def network(middle=nn.Tanh):
    """A network whose layers have 7, 1 and 3 rows. Two ranks cannot share these equally."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(nn.Linear(4, 7), middle(), nn.Linear(7, 1), nn.Linear(1, 3)).double()


def without_second_derivative():
    return Cubed(twice=False)


class Tied(nn.Module):
    """A network whose output layer reads the weights of a layer inside of another unit."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.body = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4), nn.Tanh())
        self.double()

    def forward(self, inputs):
        return nn.functional.linear(self.body(inputs), self.body[0].weight)


def warnings_of_padding(tied):
    """What is said of an embedding with a padding row, whose weights are those of the output layer, or not."""
    words = nn.Sequential(nn.Embedding(3, 3, padding_idx=0), nn.Linear(3, 3))
    if tied:
        words[1].weight = words[0].weight
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Objective(keeps_weights(words), loss_fn, (TARGETS[:9], TARGETS[:9])).gradient()
    return [str(each.message) for each in caught if "padding" in str(each.message)]


def dense(model, of_samples=loss_fn):
    """Loss, gradient, Hessian and Gauss-Newton matrix of all the data, by plain torch."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])

    def outputs(point):
        parts = point.split([shape.numel() for shape in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return torch.func.functional_call(model, weights, (INPUTS,))

    def loss(point):
        return of_samples(outputs(point), TARGETS)

    jacobian = torch.func.jacrev(outputs)(theta)
    scores = outputs(theta)
    curved = torch.func.hessian(lambda z: of_samples(z, TARGETS))(scores)
    gauss_newton = torch.einsum("abi,abcd,cdj->ij", jacobian, curved, jacobian)
    slopes = torch.func.grad(lambda z: of_samples(z, TARGETS))(scores) * len(TARGETS)
    each = torch.einsum("ab,abi->ai", slopes, jacobian)
    return {
        "theta": theta,
        "loss": loss,
        "gradient": torch.func.grad(loss)(theta),
        "hessian": torch.func.hessian(loss)(theta),
        "gauss-newton": gauss_newton,
        "empirical-fisher": each.T @ each / len(TARGETS),
    }


def whole(objective, vector):
    """A vector of all ranks from the parts of each."""
    parts = [None] * 2
    dist.all_gather_object(parts, objective.unflatten(vector.detach()))
    return torch.cat([torch.cat([part[name] for part in parts]).flatten() for name in objective.names])


def part(objective, seed):
    generator = torch.Generator().manual_seed(seed + 10 * dist.get_rank())
    return torch.randn(objective.theta.shape, generator=generator, dtype=objective.dtype)


def products(objective):
    vector = part(objective, 0)
    found = {"hessian": objective.hvp(vector), "gauss-newton": objective.ggnvp(vector)}
    found = {name: whole(objective, product) for name, product in found.items()}
    return {"vector": whole(objective, vector), **found}


def numbers(objective):
    vector = part(objective, 0)
    gradient = objective.gradient()
    eigen = top_eigenvalues(objective, 3, tol=1e-7)
    smallest = top_eigenvalues(objective, 1, which="smallest", tol=1e-7, matrix="functional")
    traced = trace(objective, rtol=None, max_products=40)
    along = line(objective, gradient, alpha=ALPHA)
    return {
        **products(objective),
        "samples": objective.n_samples,
        "parameters": objective.n_parameters,
        "loss": objective.value(),
        "accuracy": objective.evaluate().accuracy,
        "gradient": whole(objective, gradient),
        "empirical-fisher": whole(objective, EmpiricalFisher(objective) @ vector),
        "eigenvalues": (eigen.values, eigen.errors, eigen.converged, eigen.vectors),
        "smallest": (smallest.values, smallest.errors),
        "trace": (traced.value, traced.standard_error),
        "line": (along.loss, along.direction_norm),
        "part": products(objective.subset(parameters=lambda name: name.startswith("0"))),
    }


class Breaks(nn.Module):
    """tanh, whose forward or backward pass can be told to fail."""

    fails_in = ""

    def forward(self, x):
        if self.fails_in == "forward":
            raise ValueError("the disk is full")
        x = x.tanh()
        if self.fails_in == "backward" and x.requires_grad:
            x.register_hook(self.fail)
        return x

    def fail(self, _):
        raise ValueError("the disk is full")


MEASURES = {
    "loss": lambda objective: objective.value(),
    "gradient": lambda objective: objective.gradient(),
    "product": lambda objective: objective.hvp(objective.theta),
    "Fisher matrix": lambda objective: EmpiricalFisher(objective) @ objective.theta,
    "line": lambda objective: line(objective, objective.theta, alpha=ALPHA),
}


def failures(rank, mine):
    """What each measure says if rank 1 fails in the middle of a pass, and what is measured afterward."""
    objective = Objective(fully_sharded(network(Breaks)), loss_fn, mine, chunk_size=10)
    for measure in MEASURES.values():
        measure(objective)
    found = {}
    (breaks,) = (module for module in objective.model.modules() if isinstance(module, Breaks))
    for fails_in in ("forward", "backward"):
        for name, measure in MEASURES.items():
            breaks.fails_in = fails_in if rank else ""
            try:
                measure(objective)
            except (ValueError, RuntimeError) as error:
                found[name, fails_in] = f"{type(error).__name__}: {error}"
            breaks.fails_in = ""
    found["afterward"] = objective.value()
    return found


def refusals(rank, objective, model, mine):
    def made(model=model, data=mine, **options):
        return lambda: Objective(model, loss_fn, data, **options)

    partly = network()
    fully_sharded(partly[0])
    stream = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*mine), batch_size=10)
    few = (mine[0][: 3 + 10 * rank], mine[1][: 3 + 10 * rank])
    ignored = (mine[0], mine[1].clone())
    ignored[1][: 10 * rank] = loss_fn.ignore_index
    attempts = {
        "sharpness": lambda: sharpness(objective, rho=0.1),
        "spectral_density": lambda: spectral_density(objective),
        "filter_normalized_directions": lambda: filter_normalized_directions(objective),
        "Tracker": lambda: Tracker(objective, at_most=None),
        "recalibrate": lambda: line(objective, part(objective, 0), batch_norm="recalibrate"),
        "xtrace": lambda: trace(objective, method="xtrace"),
        "start": lambda: top_eigenvalues(objective, start=part(objective, 0).unsqueeze(1)),
        "process_group": made(process_group=dist.group.WORLD),
        "regularizer": made(regularizer=lambda parameters: parameters["0.weight"].square().sum()),
        "linearize": made(linearize=True),
        "keep": made(data=stream, keep="none"),
        "chunks": made(data=few, chunk_size=5),
        "counts": made(data=ignored, chunk_size=10),
        "a part of it": made(model=partly),
    }
    return {name: refusal(attempt) for name, attempt in attempts.items()}


def measured(rank):
    """What one of the ranks finds."""
    mine = (INPUTS[SHARES[rank]], TARGETS[SHARES[rank]])
    model = fully_sharded(network())
    before = [p.detach().to_local().clone() for p in model.parameters()]
    objective = Objective(model, loss_fn, mine, chunk_size=10)
    found = numbers(objective)
    loss_fn(model(mine[0]), mine[1]).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    found["loss after training"] = objective.value()
    kept = [
        torch.equal(p.detach().to_local(), b + 1) for p, b in zip(model.parameters(), before, strict=True)
    ]
    found["model kept"] = all(kept)
    rough = Objective(fully_sharded(network(without_second_derivative)), loss_fn, mine, chunk_size=10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found["differences"] = products(rough)
    found["warnings"] = [str(warning.message) for warning in caught]
    found["padding"] = [len(warnings_of_padding(tied)) for tied in (False, True)]
    found["traffic"] = counts(layers=8, width=64)
    tied = Tied()
    keeps_weights(tied.body[0])
    found["tied"] = products(Objective(fully_sharded(tied), loss_fn, mine, chunk_size=10))
    found["refusals"] = refusals(rank, objective, model, mine)
    found["failures"] = failures(rank, mine)
    return found


@pytest.fixture(scope="module")
def truth():
    return dense(network())


def close(found, wanted):
    found, wanted = (torch.as_tensor(each, dtype=torch.float64) for each in (found, wanted))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_losses_and_gradients_are_those_of_all_samples_and_all_weights(objectives, truth):
    for found in objectives:
        assert found["samples"] == 38
        assert found["parameters"] == len(truth["theta"])
        close(found["loss"], truth["loss"](truth["theta"]))
        close(found["gradient"], truth["gradient"])
        hits = network()(INPUTS).argmax(1) == TARGETS
        assert found["accuracy"] == hits.double().mean().item()


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton", "empirical-fisher"])
def test_products_are_those_of_the_dense_matrix(objectives, truth, matrix):
    for found in objectives:
        close(found[matrix], truth[matrix] @ found["vector"])


def test_weights_that_another_unit_reads_are_whole_there(objectives):
    for found in objectives:
        close(found["tied"]["hessian"], dense(Tied())["hessian"] @ found["tied"]["vector"])


def test_some_of_the_parameters_can_be_the_variables(objectives, truth):
    n = 4 * 7 + 7
    for found in objectives:
        close(found["part"]["hessian"], truth["hessian"][:n, :n] @ found["part"]["vector"])


def test_eigenvalues_are_the_dense_ones_within_their_error_and_equal_on_all_ranks(objectives, truth):
    for found in objectives:
        values, errors, converged, vectors = found["eigenvalues"]
        assert converged.all()
        assert vectors is None
        exact = torch.linalg.eigvalsh(truth["hessian"]).flip(0)[:3].numpy()
        assert (np.abs(values - exact) <= errors + 1e-12).all()
        functional = torch.linalg.eigvalsh(truth["hessian"] - truth["gauss-newton"])[:1].numpy()
        assert (np.abs(found["smallest"][0] - functional) <= found["smallest"][1] + 1e-12).all()
    np.testing.assert_array_equal(objectives[0]["eigenvalues"][0], objectives[1]["eigenvalues"][0])


def test_the_trace_is_the_dense_one_within_its_error_and_equal_on_all_ranks(objectives, truth):
    value, error = objectives[0]["trace"]
    assert 0 < error < 0.2 * abs(value)
    assert abs(value - truth["hessian"].trace().item()) < 4 * error
    assert objectives[1]["trace"] == objectives[0]["trace"]


def test_a_line_has_the_losses_of_plain_torch(objectives, truth):
    wanted = [truth["loss"](truth["theta"] + alpha * truth["gradient"]).item() for alpha in ALPHA]
    for found in objectives:
        losses, length = found["line"]
        close(losses, np.array(wanted))
        close(length, truth["gradient"].norm())


def test_training_on_moves_neither_the_objective_nor_does_measuring_move_the_model(objectives):
    for found in objectives:
        assert found["loss after training"] == found["loss"]
        assert found["model kept"]


def test_without_second_derivatives_products_are_differences_within_their_stated_error(objectives):
    exact = dense(network(lambda: Cubed(twice=True)))
    for found in objectives:
        assert len(found["warnings"]) == 2
        differences = found["differences"]
        for matrix, text in zip(("hessian", "gauss-newton"), found["warnings"], strict=True):
            stated = float(re.search(r"with a relative error of about (\S+),", text)[1])
            assert stated < 1e-6
            wanted = exact[matrix] @ differences["vector"]
            assert (differences[matrix] - wanted).norm() <= stated * wanted.norm()


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("sharpness", "objective: sharpness computes with whole vectors"),
        ("spectral_density", "objective: spectral_density computes with whole vectors"),
        ("filter_normalized_directions", "objective: filter_normalized_directions computes with whole"),
        ("Tracker", "objective: Tracker computes with whole vectors"),
        ("recalibrate", "objective: batch_norm='recalibrate' computes with whole vectors"),
        ("xtrace", "method: only Hutchinson's method"),
        ("start", "start: a search under FSDP2 begins from random vectors"),
        ("process_group", "process_group: a model under FSDP2 brings its own"),
        ("regularizer", "regularizer: each rank has only a part of the weights"),
        ("linearize", "linearize: products of a model under FSDP2 are not traced"),
        ("keep", "keep: the data of a model under FSDP2 are kept in memory"),
        ("chunks", "data: the ranks have 1 and 3 chunks"),
        ("counts", "data: on some rank no sample of a chunk counts"),
        ("a part of it", "model: FSDP2 shards a part of it, but not '2.weight'"),
    ],
)
def test_what_needs_whole_vectors_or_unequal_passes_is_refused_on_all_ranks(objectives, what, cause):
    for found in objectives:
        assert found["refusals"][what].startswith(cause)


@pytest.mark.parametrize(
    ("measure", "fails_in"),
    [
        *((name, "forward") for name in MEASURES),
        *((name, "backward") for name in ("gradient", "product", "Fisher matrix")),
    ],
)
def test_a_failure_of_one_rank_in_the_middle_of_a_pass_ends_it_on_all_with_the_cause(
    objectives, truth, measure, fails_in
):
    first, second = (found["failures"] for found in objectives)
    assert second[measure, fails_in] == "ValueError: the disk is full"
    assert first[measure, fails_in].startswith("RuntimeError: rank 1 failed")
    assert first[measure, fails_in].endswith("ValueError: the disk is full")
    for found in (first, second):
        close(found["afterward"], truth["loss"](truth["theta"]))


def test_a_padding_row_is_warned_of_where_the_embedding_is_tied(objectives):
    assert [found["padding"] for found in objectives] == [[0, 1], [0, 1]]
