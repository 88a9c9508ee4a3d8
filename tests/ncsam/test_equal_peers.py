"""A second network with the weights of the first, as a copy has them, is refused or told at the first step."""

import copy
import warnings

import pytest
import torch

from ncsam import AUMFilter, CoTeaching, DivideMix, ELRPlus
from tests.ncsam.small_network import batch, loss_fn, network

METHODS = {
    "co-teaching": lambda model, peer: CoTeaching(model, loss_fn, peer=peer, forget_rate=0.2),
    "dividemix": lambda model, peer: DivideMix(model, loss_fn, peer=peer, seed=0, warmup=1.0),
    "elr-plus": lambda model, peer: ELRPlus(model, loss_fn, peer=peer, samples=16, seed=0),
    "aum-filter": lambda model, peer: AUMFilter(model, loss_fn, peer=peer, samples=16, removed=0.2),
}


def step(method):
    method.progress, method.epoch_share = 0.2, 0.1
    return method.backward(*batch(), torch.arange(16))


def copied(name):
    model = network()
    return METHODS[name](model, copy.deepcopy(model))


def test_co_teaching_of_a_copy_is_refused_because_both_would_stay_one_network():
    with pytest.raises(
        ValueError, match=r"^peer: begins with the weights .* stay one; build it with another seed"
    ):
        step(copied("co-teaching"))


@pytest.mark.parametrize("name", ["dividemix", "elr-plus"])
def test_a_copy_that_differs_by_its_mixtures_is_told_once(name):
    method = copied(name)
    with pytest.warns(UserWarning, match=r"^peer: begins with the weights .* by their mixtures alone; build"):
        step(method)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(method)


def test_a_copy_that_learns_after_the_first_network_is_taken():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(copied("aum-filter"))


@pytest.mark.parametrize("name", METHODS)
def test_a_copy_may_get_the_weights_of_a_checkpoint(name):
    method = copied(name)
    method.load_state_dict(METHODS[name](network(), network(seed=1)).state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(method)
