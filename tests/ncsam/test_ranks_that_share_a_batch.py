"""Two ranks that hold unequal parts of one batch: each method's step is that of one process, or it is refused."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ncsam import METHODS, SAM, build_method, hyperparameters
from tests.ncsam.small_network import assert_same, batch, grads, loss_fn, network
from tests.ranks import joined, on_two_ranks

SIZE, CUT = 16, 5
INPUTS, TARGETS = batch(size=SIZE)
SETTINGS = {
    "ncsam": {
        "flip_ratio": 1.0,
        "strength": 0.2,
        "warmup": 0.0,
    },  # all are relabeled: two ranks draw what one does
    "cluster-ncsam": {"flip_ratio": 0.9, "strength": 0.2, "warmup": 0.0},
    "cores2": {"beta": 1.0, "ramp_from": 0.0, "ramp_to": 0.1, "sieve_from": 0.0},
    "co-teaching": {"forget_rate": 0.2},
    "looksam": {"every": 2},
    "fisher-penalty": {"strength": 0.1},
    "jacobian-penalty": {"strength": 0.1},
    "aum-filter": {"removed": 0.2},
}
DRAWS_APART = ("cluster-ncsam",)
"""Methods that draw from each rank's part by themselves, as documented."""
WEIGHTS = torch.tensor([1.0, 5.0, 0.2, 2.0], dtype=torch.float64)


def sum_of_squares(outputs, targets):
    return (outputs - nn.functional.one_hot(targets, 4)).square().sum()


def by_hidden_weights(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, WEIGHTS)


def weight_of_targets(pair):
    return WEIGHTS[pair[1]].sum()


OWN_LOSSES = {"hidden class weights": by_hidden_weights, "a sum": sum_of_squares}


def method_of(name, model, peer):
    radius = {"rho": 0.3} if "rho" in hyperparameters(name) else {}
    own_peer = peer if METHODS[name].requires.peer else None
    settings = {**radius, **SETTINGS.get(name, {})}
    method = build_method(
        name, model, loss_fn, seed=0, clean_targets=batch(seed=5, size=SIZE)[1], peer=own_peer, **settings
    )
    method.progress, method.epoch_share = 0.5, 0.01
    return method


def stepped(name, rows, wrap):
    """The gradients of two steps, or what is said."""
    model = network()
    try:
        method = method_of(name, wrap(model), wrap(network(seed=1)))
        method.passes.average_over_ranks = True
        found = []
        for _ in range(2):
            model.zero_grad()
            method.backward(INPUTS[rows], TARGETS[rows], rows)
            found += grads(model)
    except ValueError as error:
        return str(error)
    return found


def with_loss(loss, rows, wrap, count=None):
    model = network()
    method = SAM(wrap(model), loss, rho=0.3, count=count)
    method.passes.average_over_ranks = True
    try:
        method.backward(INPUTS[rows], TARGETS[rows])
    except (ValueError, RuntimeError) as error:
        return str(error)
    return grads(model)


def _rank(rank, port, folder):
    rows = torch.arange(SIZE)[CUT:] if rank else torch.arange(SIZE)[:CUT]
    with joined(rank, port):
        found = {name: stepped(name, rows, DistributedDataParallel) for name in METHODS}
        for name, loss in OWN_LOSSES.items():
            found[name] = with_loss(loss, rows, DistributedDataParallel)
        found["counted"] = with_loss(by_hidden_weights, rows, DistributedDataParallel, weight_of_targets)
        torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharing")
    on_two_ranks(_rank, str(folder))
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_steps_are_those_of_one_process_or_refused_with_the_remedy(ranks, name):
    requires = METHODS[name].requires
    for found in ranks:
        if requires.one_process:
            assert found[name].startswith("model: runs in several processes (DistributedDataParallel)")
            assert found[name].endswith("train in one process")
        elif requires.peer:
            assert found[name].startswith(
                "average_over_ranks: CoTeaching chooses among the samples of its own"
            )
        elif name not in DRAWS_APART:
            assert_same(found[name], stepped(name, torch.arange(SIZE), lambda model: model))


def test_ranks_that_draw_apart_have_the_same_gradient(ranks):
    for name in DRAWS_APART:
        assert_same(*(found[name] for found in ranks))


@pytest.mark.parametrize("name", OWN_LOSSES)
def test_a_loss_of_ones_own_that_is_no_mean_over_samples_is_refused(ranks, name):
    for found in ranks:
        assert "is no mean over the samples" in found[name]
        assert "give count=" in found[name]


def test_with_a_count_hidden_class_weights_are_those_of_one_process(ranks):
    truth = with_loss(by_hidden_weights, torch.arange(SIZE), lambda model: model)
    for found in ranks:
        assert_same(found["counted"], truth)
