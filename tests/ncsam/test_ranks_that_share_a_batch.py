"""Two ranks that hold unequal parts of one batch: each method's step is that of one process, or it is refused."""

import itertools

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


class Counting(nn.Module):
    """Cross-entropy that counts its calls."""

    def __init__(self):
        super().__init__()
        # a number or a buffer would be put back after the second pass
        self.calls = itertools.count()

    def forward(self, outputs, targets):
        next(self.calls)
        return nn.functional.cross_entropy(outputs, targets)


def drawing(outputs, targets):
    return nn.functional.cross_entropy(outputs + torch.randn_like(outputs), targets)


def squeezing(outputs, targets):
    """Fails on a single sample."""
    return nn.functional.cross_entropy(outputs.squeeze(), targets)


def drawn(rows, count):
    """The gradients of a step with a loss that draws, and the random state at its end."""
    torch.manual_seed(3)
    return with_loss(drawing, rows, DistributedDataParallel, count), torch.get_rng_state()


def calls_in_two_steps(rows):
    loss = Counting()
    method = SAM(DistributedDataParallel(network()), loss, rho=0.3)
    method.passes.average_over_ranks = True
    for _ in range(2):
        method.backward(INPUTS[rows], TARGETS[rows])
    return next(loss.calls)


def token_mean(outputs, targets):
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def padded_steps(rank):
    """A step on tokens of which rank 1 has few, without and with what counts; all losses are about log 9."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 8, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 9, (64, 8), generator=generator)
    targets[32:, 1:] = -100
    rows = {None: slice(None), 0: slice(0, 32), 1: slice(32, 64)}[rank]
    found = []
    for count in (None, lambda pair: (pair[1] >= 0).sum()):
        torch.manual_seed(1)
        model = nn.Linear(5, 9).double()
        with torch.no_grad():
            model.weight.mul_(0.02)
            model.bias.zero_()
        method = SAM(
            model if rank is None else DistributedDataParallel(model), token_mean, rho=0.3, count=count
        )
        method.passes.average_over_ranks = True
        try:
            method.backward(inputs[rows], targets[rows])
        except ValueError as error:
            found.append(str(error))
        else:
            found.append(grads(model))
    return found


def checks_of_own_losses(rank, rows):
    """What the check of a loss of one's own does; rank 0 has 3 samples where the parts are small."""
    small = torch.arange(SIZE)[3:] if rank else torch.arange(SIZE)[:3]
    return {
        "calls": calls_in_two_steps(rows),
        "drawn": drawn(rows, None),
        "drawn, counted": drawn(rows, lambda pair: len(pair[1])),
        "squeezing": with_loss(squeezing, small, DistributedDataParallel),
        "padded": padded_steps(rank),
        "small part of a sum": with_loss(sum_of_squares, small, DistributedDataParallel),
    }


def _rank(rank, port, folder):
    rows = torch.arange(SIZE)[CUT:] if rank else torch.arange(SIZE)[:CUT]
    with joined(rank, port):
        found = {name: stepped(name, rows, DistributedDataParallel) for name in METHODS}
        for name, loss in OWN_LOSSES.items():
            found[name] = with_loss(loss, rows, DistributedDataParallel)
        found["counted"] = with_loss(by_hidden_weights, rows, DistributedDataParallel, weight_of_targets)
        found |= checks_of_own_losses(rank, rows)
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


def test_a_loss_with_a_state_of_its_own_is_called_once_a_pass(ranks):
    assert [found["calls"] for found in ranks] == [4, 4]


def test_a_loss_that_draws_is_taken_and_draws_as_if_it_were_not_checked(ranks):
    for found in ranks:
        (gradients, state), (unchecked, state_unchecked) = found["drawn"], found["drawn, counted"]
        assert_same(gradients, unchecked)
        assert torch.equal(state, state_unchecked)


def test_a_loss_that_fails_on_one_sample_is_taken_where_a_rank_has_three(ranks):
    truth = with_loss(squeezing, torch.arange(SIZE), lambda model: model)
    for found in ranks:
        assert_same(found["squeezing"], truth)


def test_a_rank_whose_part_is_too_small_to_check_by_itself_checks_it_beside_samples_of_the_other(ranks):
    for found in ranks:
        assert "is no mean over the samples" in found["small part of a sum"]


def test_a_mean_over_tokens_of_which_the_ranks_have_other_numbers_is_refused_unless_they_are_counted(ranks):
    truth = padded_steps(None)[1]
    for found in ranks:
        refused, counted = found["padded"]
        assert "is no mean over the samples" in refused
        assert "give count=" in refused
        assert_same(counted, truth)
