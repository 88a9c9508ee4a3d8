"""Micro-batches, and ranks that average, do what one process does with the whole batch, whatever a loss divides by."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ncsam import NCSAM, WSAM, LookSAM, Plain
from tests.ncsam.small_network import METHODS as ALL_METHODS
from tests.ncsam.small_network import assert_same, batch, gradient_at, grads, network, weights_of
from tests.ranks import fully_sharded, joined, on_two_ranks

NOBODY, FIRST, SECOND = slice(0, 0), slice(0, 4), slice(4, 16)
WEIGHTS = torch.tensor([1.0, 5.0, 0.2, 2.0], dtype=torch.float64)
LOSSES = {
    "mean": (nn.CrossEntropyLoss(), NOBODY),
    "class weights": (nn.CrossEntropyLoss(weight=WEIGHTS), NOBODY),
    "smoothed class weights": (nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.2), NOBODY),
    "ignored labels": (nn.CrossEntropyLoss(ignore_index=255), slice(2, 7)),
    "a part of ignored labels": (nn.CrossEntropyLoss(label_smoothing=0.2), FIRST),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), NOBODY),
}
"""Name -> (loss, samples whose label it ignores)."""


def ncsam(model, **options):
    # all samples are drawn, so that the draws of parts are those of the whole
    settings = {"rho": 0.3, "flip_ratio": 1.0, "strength": 0.2, "warmup": 0.0, **options}
    return NCSAM(model, nn.CrossEntropyLoss(), **settings)


METHODS = {
    **{name: make for name, make in ALL_METHODS.items() if name != "cluster-ncsam"},
    "wsam": lambda model: WSAM(model, nn.CrossEntropyLoss(), rho=0.3),
    "looksam": lambda model: LookSAM(model, nn.CrossEntropyLoss(), rho=0.3, every=2),
    "ncsam": ncsam,
    "ncsam, smoothed": lambda model: ncsam(model, label_smoothing=0.1),
}


def filled(name, loss, wrap=lambda model: model, rows=slice(None), size=None, average=False):
    """The gradients and losses of two steps on some samples of the batch, added up."""
    model = network()
    method = METHODS[name](wrap(model))
    method.progress = 1.0
    method.passes.micro_batch_size, method.passes.average_over_ranks = size, average
    method.passes.loss_fn, ignored = LOSSES[loss]
    inputs, targets = batch()
    targets[ignored] = method.loss_fn.ignore_index
    losses = [method.backward(inputs[rows], targets[rows], torch.arange(16)[rows]) for _ in range(2)]
    return [*grads(model), *losses]


@cache
def of_the_whole_batch(name, loss):
    """What one process finds with the batch at once."""
    return filled(name, loss)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_give_the_gradient_and_the_loss_of_the_whole_batch(name, loss):
    assert_same(filled(name, loss, size=4), of_the_whole_batch(name, loss))


def test_the_simulated_gradient_is_that_of_the_smoothed_loss_over_all_drawn_positions():
    torch.manual_seed(0)
    model, inputs = nn.Conv1d(4, 3, 1).double(), torch.randn(12, 4, 5, dtype=torch.float64)
    targets = torch.randint(0, 3, (12, 5))
    targets[0, :3] = 255
    method = NCSAM(
        model, nn.CrossEntropyLoss(ignore_index=255), rho=10.0, flip_ratio=0.5, strength=1.0, warmup=0.0,
        schedule="constant", label_smoothing=0.1,
    )  # fmt: skip
    method.passes.micro_batch_size = 4
    method.backward(inputs, targets)
    noise = method.ascent.compensation
    scores = model(inputs).movedim(1, -1).flatten(0, 1)[noise.drawn]
    right = nn.functional.cross_entropy(scores, noise.temporary_targets, label_smoothing=0.1)
    assert_same(noise.gradient, torch.autograd.grad(right, list(model.parameters())))


def _averaging(rank, port, folder):
    with joined(rank, port):
        options = {"wrap": DistributedDataParallel, "rows": (FIRST, SECOND)[rank], "average": True}
        for size in (None, 3):
            found = {
                (name, loss): filled(name, loss, size=size, **options)[:-2]
                for name in METHODS
                for loss in LOSSES
            }
            torch.save(found, f"{folder}/{size}-{rank}.pt")
        torch.save(_random_direction(rank), f"{folder}/random{rank}.pt")
        torch.save(_sharded(rank), f"{folder}/sharded{rank}.pt")
        torch.save(_counting(rank), f"{folder}/counting{rank}.pt")


def _random_direction(rank):
    inputs, targets = batch()
    rows = (FIRST, SECOND)[rank]
    method = ncsam(
        DistributedDataParallel(network()), direction="random", rho=10.0, flip_ratio=0.3, seed=rank
    )
    method.progress, method.passes.average_over_ranks = 1.0, True
    method.backward(inputs[rows], targets[rows])
    noise = method.ascent.compensation
    return [method.ascent.perturbation, noise.gradient, noise.drawn, noise.temporary_targets]


def _sharded(rank):
    """The gradients of both methods under FSDP2 for each loss of which both ranks have labels."""
    found = {}
    for name in ("plain", "sam", "ncsam"):
        for loss in SHARDED:
            model = fully_sharded(network())
            method = METHODS[name](model)
            method.progress = 1.0
            method.passes.loss_fn, ignored = LOSSES[loss]
            inputs, targets = batch()
            targets[ignored] = method.loss_fn.ignore_index
            rows = (FIRST, SECOND)[rank]
            for _ in range(2):
                method.backward(inputs[rows], targets[rows])
            found[name, loss] = [gradient.full_tensor() for gradient in grads(model)]
    return found


SHARDED = ("mean", "class weights", "ignored labels", "sum")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    on_two_ranks(_averaging, str(path))
    # read once, not by each test: there are hundreds of gradients
    return {file.stem: torch.load(file) for file in path.glob("*.pt")}


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", METHODS)
def test_ranks_that_average_give_the_gradient_of_the_whole_batch(found, name, loss, size):
    right = of_the_whole_batch(name, loss)[:-2]
    for rank in range(2):
        assert_same(found[f"{size}-{rank}"][name, loss], right)


def test_ranks_that_average_take_one_random_direction_with_the_norm_of_the_mean_simulated_gradient(found):
    drew = [found[f"random{rank}"] for rank in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(drew[0][0], drew[1][0], strict=True))
    model, (inputs, _) = network(), batch()
    drawn = torch.cat([drew[0][2], drew[1][2] + SECOND.start])
    simulated = gradient_at(model, weights_of(model), inputs[drawn], torch.cat([f[3] for f in drew]))
    lengths = [torch.cat([part.flatten() for part in each]).norm() for each in (drew[0][1], simulated)]
    torch.testing.assert_close(*lengths)


@pytest.mark.parametrize("loss", SHARDED)
@pytest.mark.parametrize("name", ["plain", "sam", "ncsam"])
def test_shards_give_the_gradient_of_the_whole_batch(found, name, loss):
    right = of_the_whole_batch(name, loss)[:-2]
    for rank in range(2):
        assert_same(found[f"sharded{rank}"][name, loss], right)


def test_ranks_weigh_by_the_count_of_the_caller(found):
    model, (inputs, targets) = network(), batch()
    right = nn.functional.cross_entropy(model(inputs), targets, weight=WEIGHTS)
    truth = torch.autograd.grad(right, list(model.parameters()))
    for rank in range(2):
        assert_same(found[f"counting{rank}"], truth)


def _counting(rank):
    model, (inputs, targets) = network(), batch()
    method = Plain(
        DistributedDataParallel(model),
        lambda outputs, labels: nn.functional.cross_entropy(outputs, labels, weight=WEIGHTS),
        count=lambda both: WEIGHTS[both[1]].sum(),
    )
    method.passes.average_over_ranks = True
    rows = (FIRST, SECOND)[rank]
    method.backward(inputs[rows], targets[rows])
    return grads(model)
