"""Methods on a model that FSDP2 shards over two ranks: the same step as in one process, or a refusal."""

import functools

import pytest
import torch

from ncsam import METHODS, SAM, Plain, Split, build_method, corrupt_labels, fit
from tests.ncsam import small_network as small
from tests.ranks import fully_sharded
from tests.sharded.refusals import refusal

INPUTS, TARGETS = small.batch(size=32)
NEW_TARGETS = small.batch(seed=5, size=32)[1]
RADIUS = 0.3
OPTIONS = {
    "plain": {},
    "sam": {"rho": RADIUS},
    "asam": {"rho": RADIUS},
    "asam-filterwise": {"rho": RADIUS, "normalization": "filterwise"},
    "gsam": {"rho": RADIUS},
    "friendly-sam": {"rho": RADIUS},
    "bsam": {"rho": RADIUS},
    "saner": {"rho": RADIUS},
    "wsam": {"rho": RADIUS},
    "looksam": {"rho": RADIUS, "every": 2},
    "j-sam": {"rho": RADIUS},
    "l-sam": {"rho": RADIUS},
    "oracle-sam": {"rho": RADIUS},
    # all samples are relabeled, so that the draws of two ranks are those of one
    "ncsam": {"rho": RADIUS, "flip_ratio": 1.0, "strength": 0.2, "warmup": 0.0},
    "ncsam-whole-batch": {
        "rho": RADIUS,
        "flip_ratio": 1.0,
        "strength": 0.2,
        "warmup": 0.0,
        "draw": "whole-batch",
        "project": False,
    },
}
REFUSED = {
    "1-sam": {"rho": RADIUS},
    "regce": {},
    "clean-sam": {"rho": RADIUS},
    "sop": {},
    "co-teaching": {"forget_rate": 0.2},
}
SINGLE = {"rho": RADIUS, "flip_ratio": 0.25, "strength": 0.4, "warmup": 0.0}


def method_of(model, name, options, seed=0):
    registered = name.removesuffix("-filterwise").removesuffix("-whole-batch")
    peer = small.network(seed=1) if METHODS[registered].requires.peer else None
    method = build_method(
        registered, model, small.loss_fn, seed=seed, clean_targets=NEW_TARGETS, peer=peer, **options
    )
    method.progress = 0.5
    return method


def steps(model, name, rows, micro_batch_size=None):
    """The gradients of three steps, as whole tensors."""
    method = method_of(model, name, OPTIONS[name])
    method.passes.micro_batch_size = micro_batch_size
    found = []
    for _ in range(3):
        model.zero_grad()
        method.backward(INPUTS[rows], TARGETS[rows], rows)
        found += small.grads(model)
    return found


def whole(tensors):
    return [tensor.full_tensor() for tensor in tensors]


def ncsams_step(rank):
    """A step of which each rank draws a quarter of its samples: the draws, and the gradient."""
    model = fully_sharded(small.network())
    method = method_of(model, "ncsam", SINGLE, seed=rank)
    rows = torch.arange(16) + 16 * rank
    method.backward(INPUTS[rows], TARGETS[rows])
    drawn = method.ascent.compensation
    return rows[drawn.drawn], drawn.temporary_targets, whole(small.grads(model))


def failures(rank):
    """What is said if rank 1 cannot take a batch, or its loss fails at w or at the perturbed weights."""
    calls = []

    def failing(outputs, targets, fails_in):
        calls.append(0)
        if rank and len(calls) == fails_in:
            raise ValueError("the disk is full")
        return small.loss_fn(outputs, targets)

    found = {}
    for name, fails_in, rows in (("at w", 1, 8), ("perturbed", 2, 8), ("batch", 0, 8 - 8 * rank)):
        calls.clear()
        loss_fn = functools.partial(failing, fails_in=fails_in)
        # with a count, the loss is called once a pass
        method = SAM(
            fully_sharded(small.network()), loss_fn, rho=RADIUS, count=lambda batch: float(len(batch[1]))
        )
        try:
            method.backward(INPUTS[:rows], TARGETS[:rows])
        except (ValueError, RuntimeError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def measured(rank):
    """What one of the ranks finds."""
    rows = torch.arange(16) + 16 * rank
    found = {name: whole(steps(fully_sharded(small.network()), name, rows)) for name in OPTIONS}
    found["micro-batches"] = whole(steps(fully_sharded(small.network()), "sam", rows, micro_batch_size=4))
    model = fully_sharded(small.network())
    before = whole(model.parameters())
    model(INPUTS)  # leaves whole weights in the place of the parts
    SAM(model, small.loss_fn, rho=RADIUS).backward(INPUTS[rows], TARGETS[rows])
    kept = all(torch.equal(a, b) for a, b in zip(before, whole(model.parameters()), strict=True))
    found["after a forward pass"] = whole(small.grads(model))
    refused = {
        name: refusal(lambda name=name: method_of(fully_sharded(small.network()), name, REFUSED[name]))
        for name in REFUSED
    }
    plain = Plain(model, small.loss_fn)
    data, labels = Split(INPUTS, TARGETS), corrupt_labels(TARGETS, rate=0.4, seed=0)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    refused["fit"] = refusal(
        lambda: fit(plain, optimizer, data, labels, data, epochs=1, batch_size=8, seed=0)
    )
    ignored = TARGETS[rows] if rank else torch.full((16,), -100)
    refused["no sample"] = refusal(lambda: method_of(model, "ncsam", SINGLE).backward(INPUTS[rows], ignored))
    return found, kept, refused, ncsams_step(rank), failures(rank)


@pytest.mark.parametrize("name", OPTIONS)
def test_three_steps_on_two_ranks_are_those_of_one_process(methods, name):
    truth = steps(small.network(), name, torch.arange(32))
    for found, *_ in methods:
        small.assert_same(found[name], truth)


@pytest.mark.parametrize("name", ["micro-batches", "after a forward pass"])
def test_sam_is_the_same_in_micro_batches_and_with_weights_that_a_forward_pass_left_whole(methods, name):
    truth = steps(small.network(), "sam", torch.arange(32))
    for found, kept, *_ in methods:
        assert kept
        small.assert_same(found[name], truth[: len(found[name])])


def test_ncsam_compensates_by_the_noise_that_the_ranks_simulate_together(methods):
    model = small.network()
    weights = small.weights_of(model)
    drawn, labels, _ = (list(parts) for parts in zip(*(found[3] for found in methods), strict=True))
    drawn, labels = torch.cat(drawn), torch.cat(labels)
    assert len(drawn) == 8
    assert (labels != TARGETS[drawn]).all()
    at_w = small.gradient_at(model, weights, INPUTS, TARGETS)
    simulated = small.gradient_at(model, weights, INPUTS[drawn], labels)
    length = torch.cat([part.flatten() for part in at_w]).norm()
    scale = method_of(model, "ncsam", SINGLE).scale()
    shifted = [RADIUS / length * g + scale * s for g, s in zip(at_w, simulated, strict=True)]
    longer = (torch.cat([part.flatten() for part in shifted]).norm() / RADIUS).clamp(min=1)
    truth = small.gradient_at(
        model, small.shifted(weights, [part / longer for part in shifted]), INPUTS, TARGETS
    )
    for found in methods:
        small.assert_same(found[3][2], truth)


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        *((name, "whole weights") for name in REFUSED),
        ("fit", "fully_shard"),
        ("no sample", "some ranks have samples to relabel, others have none"),
    ],
)
def test_what_cannot_run_on_parts_of_the_weights_is_refused_on_all_ranks(methods, what, cause):
    for _, _, refused, *_ in methods:
        assert cause in refused[what]


@pytest.mark.parametrize("where", ["at w", "perturbed", "batch"])
def test_a_failure_on_one_rank_ends_the_step_on_all_with_the_cause(methods, where):
    first, second = (found[4][where] for found in methods)
    assert second == "ValueError: " + (
        "inputs: the batch is empty" if where == "batch" else "the disk is full"
    )
    assert first == f"RuntimeError: rank 1: {second}"


def test_every_method_is_either_tried_or_refused():
    tried = {*OPTIONS, *REFUSED, "cluster-ncsam", "cores2"}  # the last two look at the rank's own batch alone
    left = {name for name in METHODS if name not in tried}
    assert all(METHODS[name].requires.peer or METHODS[name].requires.one_process for name in left)
