"""Any method may begin with ordinary gradients."""

import pytest
import torch

from ncsam import ASAM, BSAM, GSAM, NCSAM, SAM, SANER, CoTeaching, FriendlySAM, OracleSAM, Plain, build_method
from tests.ncsam.small_network import assert_same, batch, grads, loss_fn, network

WITH_WARMUP = {
    "sam": lambda m, w: SAM(m, loss_fn, rho=0.3, warmup=w),
    "asam": lambda m, w: ASAM(m, loss_fn, rho=0.3, warmup=w),
    "gsam": lambda m, w: GSAM(m, loss_fn, rho=0.3, warmup=w),
    "friendly-sam": lambda m, w: FriendlySAM(m, loss_fn, rho=0.3, warmup=w),
    "bsam": lambda m, w: BSAM(m, loss_fn, rho=0.3, warmup=w),
    "saner": lambda m, w: SANER(m, loss_fn, rho=0.3, warmup=w),
    "oracle-sam": lambda m, w: OracleSAM(m, loss_fn, rho=0.3, clean_targets=torch.zeros(16).long(), warmup=w),
    "ncsam": lambda m, w: NCSAM(m, loss_fn, rho=0.3, flip_ratio=0.4, strength=0.2, warmup=w),
    "co-teaching": lambda m, w: CoTeaching(m, loss_fn, peer=network(seed=1), forget_rate=0.4, warmup=w),
}


def gradients(make, progress):
    model = network()
    method = make(model)
    method.progress = progress
    method.backward(*batch(), torch.arange(16))
    return grads(model), method


@pytest.mark.parametrize("name", WITH_WARMUP)
def test_gradients_are_ordinary_up_to_the_end_of_the_warmup_and_the_methods_own_afterward(name):
    ordinary, _ = gradients(lambda m: Plain(m, loss_fn), 0.25)
    without, _ = gradients(lambda m: WITH_WARMUP[name](m, 0.0), 0.26)
    in_it, method = gradients(lambda m: WITH_WARMUP[name](m, 0.25), 0.25)
    after, _ = gradients(lambda m: WITH_WARMUP[name](m, 0.25), 0.26)
    assert_same(in_it, ordinary)
    assert method.ascent is None
    assert method.gradient_count == (2 if name == "co-teaching" else 1)
    assert all(torch.equal(a, b) for a, b in zip(after, without, strict=True))
    assert not torch.allclose(after[0], ordinary[0], rtol=1e-6)


def test_both_networks_of_co_teaching_learn_from_all_samples_in_the_warmup():
    peer, same = network(seed=1), network(seed=1)
    method = CoTeaching(network(), loss_fn, peer=peer, forget_rate=0.4, warmup=0.5)
    method.progress = 0.5
    method.backward(*batch())
    Plain(same, loss_fn).backward(*batch())
    assert_same(grads(peer), grads(same))


def test_a_warmup_needs_the_progress_and_its_absence_does_not():
    with pytest.raises(ValueError, match="^progress: the schedule of SAM needs it; set method.progress"):
        SAM(network(), loss_fn, rho=0.1, warmup=0.25).backward(*batch())
    SAM(network(), loss_fn, rho=0.1).backward(*batch())


@pytest.mark.parametrize("name", ["sam", "co-teaching"])
@pytest.mark.parametrize("warmup", [-0.1, 1.5, float("nan")])
def test_a_warmup_that_is_no_share_is_refused(name, warmup):
    with pytest.raises(ValueError, match="^warmup: must be a (share|number)"):
        WITH_WARMUP[name](network(), warmup)


def test_a_warmup_by_name():
    method = build_method(
        "sam", network(), loss_fn, seed=0, clean_targets=torch.zeros(1), rho=0.1, warmup=0.25
    )
    assert method.warmup == 0.25
