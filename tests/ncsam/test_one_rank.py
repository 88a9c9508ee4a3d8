"""DistributedDataParallel in a single process: each method does what it does without."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from ncsam import METHODS, Split, build_method, corrupt_labels, fit
from tests.ncsam.small_network import batch, loss_fn, network
from tests.ncsam.test_ranks_that_share_a_batch import SIZE, stepped

NEED_EPOCHS = {
    "dividemix": {"warmup": 0.5},
    "pes": {"latter": 1, "first": 0.25, "second": 0.25, "third": 0.25},
}
"""Methods that look at the whole training set before each epoch, and their settings."""


def bare(model):
    return model


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NEED_EPOCHS])
def test_a_wrapper_for_one_process_changes_no_step(one_rank, name):
    rows = torch.arange(SIZE)
    found, truth = (stepped(name, rows, wrap) for wrap in (DistributedDataParallel, bare))
    torch.testing.assert_close(found, truth)


def trained(name, wrap):
    """The weights after four epochs."""
    data = Split(*batch(size=48))
    labels = corrupt_labels(data.targets, rate=0.4, seed=0)
    model, peer = wrap(network()), wrap(network(seed=1))
    own_peer = peer if METHODS[name].requires.peer else None
    method = build_method(
        name, model, loss_fn, seed=0, clean_targets=data.targets, peer=own_peer, **NEED_EPOCHS[name]
    )
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    fit(method, optimizer, data, labels, data, epochs=4, batch_size=16, seed=0)
    return [weight.detach() for weight in method.parameters()]


@pytest.mark.parametrize("name", NEED_EPOCHS)
def test_a_wrapper_for_one_process_changes_no_training(one_rank, name):
    torch.testing.assert_close(trained(name, DistributedDataParallel), trained(name, bare))
