"""`indices` are the positions of the batch's samples in the training set; other ones are refused with the remedy."""

import pytest
import torch

from ncsam import (
    SAM,
    SOP,
    AUMFilter,
    CleanSAM,
    EarlyLearningRegularization,
    ELRPlus,
    OracleSAM,
    Plain,
    StochasticLabelNoise,
)
from tests.ncsam.small_network import batch, grads, loss_fn, network

SAMPLES, SIZE = 20, 16
PLACES = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))[:SIZE]
CLEAN = batch(seed=5, size=SAMPLES)[1]
METHODS = {
    "elr": lambda m: Plain(m, EarlyLearningRegularization(SAMPLES, 4).double()),
    "elr-sam": lambda m: SAM(m, EarlyLearningRegularization(SAMPLES, 4).double(), rho=0.1),
    "sln": lambda m: Plain(m, StochasticLabelNoise(SAMPLES, 4)),
    "sop": lambda m: SOP(m, loss_fn, samples=SAMPLES, seed=0),
    "elr-plus": lambda m: ELRPlus(m, loss_fn, peer=network(seed=1), samples=SAMPLES, seed=0),
    "aum-filter": lambda m: AUMFilter(m, loss_fn, peer=network(seed=1), samples=SAMPLES, removed=0.2),
    "oracle": lambda m: OracleSAM(m, loss_fn, rho=0.1, clean_targets=CLEAN),
    "clean-sam": lambda m: CleanSAM(m, loss_fn, rho=0.1, clean_targets=CLEAN),
}
OF_ANOTHER_FORM = {
    "a column": PLACES[:, None],
    "one for all": PLACES[:1],
    "a scalar": PLACES[0],
    "too many": torch.cat([PLACES, PLACES]),
    "fractions": PLACES.double(),
    "a mask": torch.zeros(SAMPLES, dtype=torch.bool).index_fill(0, PLACES, True),
    "words": [str(place) for place in PLACES.tolist()],
}
OUTSIDE = {"negative": PLACES - SAMPLES, "too large": PLACES + 1}
OF_ANOTHER_TYPE = {
    "int32": PLACES.int(),
    "uint8": PLACES.to(torch.uint8),
    "an array": PLACES.numpy(),
    "a list": PLACES.tolist(),
}


def step(name, indices):
    method = METHODS[name](network())
    method.progress = 0.2
    method.backward(*batch(), indices)
    return [g for network_ in method.networks() for g in grads(network_) if g is not None]


@pytest.mark.parametrize("form", OF_ANOTHER_FORM)
@pytest.mark.parametrize("name", METHODS)
def test_indices_of_another_form_are_refused(name, form):
    with pytest.raises(ValueError, match=r"^indices: must be "):
        step(name, OF_ANOTHER_FORM[form])


@pytest.mark.parametrize("place", OUTSIDE)
@pytest.mark.parametrize("name", METHODS)
def test_positions_outside_the_training_set_are_refused(name, place):
    with pytest.raises(ValueError, match=r"^indices: -?\d+ is no position .* of the 20 .*; count from 0"):
        step(name, OUTSIDE[place])


@pytest.mark.parametrize("kind", OF_ANOTHER_TYPE)
@pytest.mark.parametrize("name", METHODS)
def test_whole_numbers_of_any_type_are_positions(name, kind):
    for found, truth in zip(step(name, OF_ANOTHER_TYPE[kind]), step(name, PLACES), strict=True):
        assert torch.equal(found, truth)


def test_indices_that_nothing_remembers_are_checked_too():
    with pytest.raises(
        ValueError, match=r"^indices: -1 is no position of a sample in the training set; count"
    ):
        SAM(network(), loss_fn, rho=0.1).backward(*batch(), torch.arange(SIZE) - 1)
