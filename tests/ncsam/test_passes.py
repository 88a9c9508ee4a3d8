"""Every method composes with micro-batches, autocast, loss scaling, DistributedDataParallel and torch.compile."""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ncsam import (
    NCSAM,
    SAM,
    ClusterNCSAM,
    CoTeaching,
    EarlyLearningRegularization,
    OneSAM,
)
from ncsam.epoch import optimizer_step
from ncsam.methods.batches import piece_sizes
from ncsam.methods.tensor_lists import added, project_onto_ball, scaled_to
from tests.ncsam.small_network import METHODS as ALL_METHODS
from tests.ncsam.small_network import assert_same, batch, gradient_at, grads, loss_fn, network, weights_of
from tests.ranks import joined, on_two_ranks

METHODS = {name: make for name, make in ALL_METHODS.items() if name not in ("asam", "cluster-ncsam")}

MAKERS = {**METHODS, "1-sam": lambda m: OneSAM(m, loss_fn, rho=0.3)}
"""Those that some tests cannot take, too."""


def stepped(name, model, configure=lambda _: None):
    """The method after one step on the batch of seed 0."""
    method = MAKERS[name](model)
    method.progress = 1.0
    configure(method.passes)
    loss = method.backward(*batch(), torch.arange(16))
    return method, loss


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [1, 5, 16, 100])
def test_micro_batches_give_the_gradient_of_the_whole_batch(name, size):
    whole, pieces = network(), network()
    expected, loss = stepped(name, whole)
    method, loss_in_pieces = stepped(name, pieces, lambda p: setattr(p, "micro_batch_size", size))
    assert_same(grads(pieces), grads(whole))
    torch.testing.assert_close(loss_in_pieces, loss)
    assert method.gradient_count == pytest.approx(expected.gradient_count)


@pytest.mark.parametrize(
    ("samples", "size", "sizes"),
    [(17, 4, [4, 4, 4, 5]), (18, 4, [4, 4, 4, 4, 2]), (16, 4, [4, 4, 4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1])],
)
def test_a_last_single_sample_joins_the_piece_before(samples, size, sizes):
    assert piece_sizes(samples, size) == sizes


def test_a_batch_of_one_more_than_the_micro_batches_hold_passes_batch_norm():
    model = network(batch_norm=True)
    method = NCSAM(model, loss_fn, rho=0.3, flip_ratio=0.3, strength=0.2, warmup=0.0)
    method.progress, method.passes.micro_batch_size = 1.0, 4
    # five samples are drawn of 17
    method.backward(*batch(size=17))
    assert all(torch.isfinite(g).all() for g in grads(model))


def test_a_micro_batch_of_nothing_and_an_empty_batch_are_refused():
    with pytest.raises(ValueError, match="^micro_batch_size"):
        stepped("sam", network(), lambda p: setattr(p, "micro_batch_size", 0))
    with pytest.raises(ValueError, match="^inputs"):
        SAM(network(), loss_fn, rho=0.1).backward(*batch(size=0))


@pytest.mark.parametrize("name", METHODS)
def test_autocast_changes_the_gradient_by_no_more_than_its_rounding(name):
    model, exact = network().float(), network().float()
    inputs, targets = batch()
    for network_, dtype in ((model, torch.bfloat16), (exact, None)):
        method = METHODS[name](network_)
        method.progress = 1.0
        method.passes.autocast_dtype = dtype
        method.backward(inputs.float(), targets, torch.arange(16))
    a, b = (torch.cat([g.flatten() for g in grads(m)]) for m in (model, exact))
    assert not torch.equal(a, b)
    # bfloat16 has 8 bits: 0.4% a product, some of them one after the other
    assert torch.linalg.vector_norm(a - b) < 0.05 * torch.linalg.vector_norm(b)


@pytest.mark.parametrize("name", METHODS)
def test_a_callers_own_autocast_does_what_that_of_the_passes_does(name):
    outside, within = network().float(), network().float()
    inputs, targets = batch()
    for model in (outside, within):
        method = METHODS[name](model)
        method.progress = 1.0
        if model is within:
            method.passes.autocast_dtype = torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16, enabled=model is outside):
            method.backward(inputs.float(), targets, torch.arange(16))
    a, b = (torch.cat([g.flatten() for g in grads(m)]) for m in (outside, within))
    # the copies of the weights that autocast keeps are those at w, which would give the gradient at w twice
    assert torch.linalg.vector_norm(a - b) < 0.02 * torch.linalg.vector_norm(b)


@pytest.mark.parametrize("name", METHODS)
def test_a_parameter_that_the_loss_does_not_reach_gets_no_gradient(name):
    model = network()
    model.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    stepped(name, model)
    assert model.unused.grad is None


@pytest.mark.parametrize("name", METHODS)
def test_an_overflow_in_the_first_step_does_not_stop_the_training(name):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = METHODS[name](model)
    method.progress = 1.0
    scaler = method.passes.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(3):
        before = weights_of(model)
        method.passes.loss_fn = lambda o, t, s=step: loss_fn(o, t) * (float("inf") if s == 0 else 1.0)
        optimizer.zero_grad()
        method.backward(*batch(), torch.arange(16))
        scaler.step(optimizer)
        scaler.update()
        moved = [not torch.equal(w, before[n]) for n, w in model.named_parameters()]
        assert all(moved) if step else not any(moved)


@pytest.mark.parametrize("name", METHODS)
def test_a_scaler_leaves_the_step_as_it_was(name):
    scaled, plain = network(), network()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.5) for m in (scaled, plain)]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    stepped(name, scaled, lambda p: setattr(p, "scaler", scaler))
    scaler.unscale_(optimizers[0])
    nn.utils.clip_grad_norm_(scaled.parameters(), 0.5)
    scaler.step(optimizers[0])
    scaler.update()
    stepped(name, plain)
    nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    optimizers[1].step()
    assert_same(scaled.parameters(), plain.parameters())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("overflow_in", [0, 1])
def test_a_scaler_skips_the_step_in_which_a_pass_overflowed(name, overflow_in):
    if name == "plain" and overflow_in:
        pytest.skip("has one pass")
    model = network()
    before = weights_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    # what an iterator keeps is not put back between passes
    calls = itertools.count()

    def overflowing(outputs, targets):
        return loss_fn(outputs, targets) * (float("inf") if next(calls) == overflow_in else 1.0)

    def configure(passes):
        passes.scaler, passes.loss_fn = scaler, overflowing

    if name == "oracle" and overflow_in:
        overflow_in = 2  # its second call only reports the observed labels' loss
    stepped(name, model, configure)
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(w, before[n]) for n, w in model.named_parameters())
    assert scaler.get_scale() == 2.0**9


def test_accumulating_over_backward_calls_perturbs_each_part_by_itself():
    model = network()
    inputs, targets = batch()
    method = SAM(model, loss_fn, rho=0.3)
    for part in (slice(0, 8), slice(8, 16)):
        method.backward(inputs[part], targets[part])
    truth = [torch.zeros_like(p) for p in model.parameters()]
    for part in (slice(0, 8), slice(8, 16)):
        apart = network()
        SAM(apart, loss_fn, rho=0.3).backward(inputs[part], targets[part])
        truth = [t + g for t, g in zip(truth, grads(apart), strict=True)]
    assert_same(grads(model), truth)


def test_clusters_are_of_a_compiled_models_features_too():
    model, plain = network(), network()
    for other, compiled in ((model, torch.compile(model, backend="aot_eager")), (plain, plain)):
        method = ClusterNCSAM(compiled, loss_fn, rho=0.3, flip_ratio=0.9, strength=0.2, warmup=0.5)
        for method.progress in (0.5, 1.0):
            other.zero_grad()
            method.backward(*batch())
        assert len(method.ascent.compensation.drawn)
    assert_same(grads(model), grads(plain))


def test_a_compiled_model_gives_the_same_gradients():
    model, plain = network(batch_norm=True), network(batch_norm=True)
    stepped("ncsam", torch.compile(model, backend="aot_eager"))
    stepped("ncsam", plain)
    assert_same(grads(model), grads(plain))
    assert_same(
        [b for b in model.buffers() if b.is_floating_point()],
        [b for b in plain.buffers() if b.is_floating_point()],
    )


AVERAGED = ("sam", "bsam", "1-sam")
APART = {"ncsam": 0, "gsam": 1}
"""Method -> how often it reduces gradients itself."""


def _rank(rank, port, directory):
    with joined(rank, port):
        found = {name: _gradients(rank, name, average=True) for name in AVERAGED}
        found |= {name: _gradients(rank, name, average=False) for name in APART}
        found["few samples"] = _few_samples(rank)
        torch.save(found, f"{directory}/{rank}.pt")


def _gradients(rank, name, average):
    """(gradients of a step, how often all of a gradient was reduced by the method itself)."""
    reduced = []
    original = dist.all_reduce

    def counted(tensor, *arguments, **options):
        # of one number: whether any rank failed
        if tensor.numel() > 1:
            reduced.append(1)
        return original(tensor, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", counted)
        model = network()
        inputs, targets = batch()
        own = slice(8 * rank, 8 * rank + 8)
        method = MAKERS[name](DistributedDataParallel(model))
        method.progress = 1.0
        method.passes.average_over_ranks = average
        method.backward(inputs[own], targets[own], torch.arange(16)[own])
    return [p.grad for p in model.parameters()], len(reduced)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks found. They are started once: that costs more than what they compute."""
    folder = tmp_path_factory.mktemp("passes")
    on_two_ranks(_rank, str(folder))
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", AVERAGED)
def test_ranks_that_average_every_gradient_equal_one_process(ranks, name):
    model = network()
    stepped(name, model)
    for gradients, reductions in (found[name] for found in ranks):
        assert_same(gradients, grads(model))
        assert name != "1-sam" or reductions == 1


@pytest.mark.parametrize(("name", "own_reductions"), APART.items())
def test_ranks_perturb_by_their_own_part_and_reduce_once(ranks, name, own_reductions):
    # NCSAM leaves the reduction to DistributedDataParallel, GSAM puts its gradient together and reduces it
    parts = []
    for rank in (0, 1):
        model = network()
        inputs, targets = batch()
        own = slice(8 * rank, 8 * rank + 8)
        method = METHODS[name](model)
        method.progress = 1.0
        method.backward(inputs[own], targets[own])
        parts.append(grads(model))
    for gradients, reductions in (found[name] for found in ranks):
        assert_same(gradients, [(a + b) / 2 for a, b in zip(*parts, strict=True)])
        assert reductions == own_reductions


def _few_samples(rank):
    """(samples that NCSAM drew, the labels that it gave them, its perturbation)."""
    model = network()
    inputs, targets = batch(size=5)
    own = slice(0, 2) if rank == 0 else slice(2, 5)
    method = METHODS["ncsam"](DistributedDataParallel(model))
    method.progress = 1.0
    method.passes.average_over_ranks = True
    # 0.4 of 2 samples are none, of 3 one
    method.backward(inputs[own], targets[own])
    drawn = method.ascent.compensation
    return drawn.drawn, drawn.temporary_targets, method.ascent.perturbation


def test_a_rank_that_draws_no_sample_has_no_weight_in_the_mean_over_ranks(ranks):
    (none, _, first), (drawn, labels, second) = (found["few samples"] for found in ranks)
    assert (len(none), len(drawn)) == (0, 1)
    model = network()
    inputs, targets = batch(size=5)
    at_w = gradient_at(model, weights_of(model), inputs, targets)
    simulated = gradient_at(model, weights_of(model), inputs[2:][drawn], labels)
    truth = added(scaled_to(at_w, 0.3), simulated, alpha=0.2)
    project_onto_ball(truth, 0.3)
    assert_same(first, truth)
    assert_same(second, truth)


class TestCoTeaching:
    @pytest.mark.parametrize(("epochs", "gradual"), [(200, 0.05), (40, 0.25), (10, 0.1), (10, 0.05)])
    def test_the_share_kept_is_the_published_schedule(self, epochs, gradual):
        method = CoTeaching(network(), loss_fn, peer=network(seed=1), forget_rate=0.4, gradual=gradual)
        method.epoch_share = 1 / epochs
        kept = []
        for epoch in range(1, epochs + 1):
            method.progress = epoch / epochs
            kept.append(method.kept_share())
        # the authors' code: forget_rate throughout, but from 0 to it by np.linspace in the first epochs
        forgotten = np.full(epochs, 0.4)
        first = max(1, round(gradual * epochs))
        forgotten[:first] = np.linspace(0, 0.4, first)
        np.testing.assert_allclose(kept, 1 - forgotten, atol=1e-12)

    def networks(self):
        return network(seed=0), network(seed=1)

    @pytest.mark.parametrize(("progress", "kept"), [(0.025, 12), (0.05, 9), (1.0, 9)])
    def test_each_network_learns_from_the_samples_that_the_other_finds_easy(self, progress, kept):
        model, peer = self.networks()
        inputs, targets = batch()
        losses = [
            nn.functional.cross_entropy(m(inputs), targets, reduction="none").detach() for m in (model, peer)
        ]
        truths = [
            gradient_at(m, weights_of(m), inputs[chosen], targets[chosen])
            for m, chosen in zip(
                (model, peer), (losses[1].argsort()[:kept], losses[0].argsort()[:kept]), strict=True
            )
        ]
        method = CoTeaching(model, loss_fn, peer=peer, forget_rate=0.4)
        method.progress = progress
        loss = method.backward(inputs, targets)
        assert_same(grads(model), truths[0])
        assert_same(grads(peer), truths[1])
        torch.testing.assert_close(loss, losses[0].mean())
        assert method.gradient_count == 2

    def test_the_samples_kept_are_counted_without_rounding_errors(self):
        model, peer = self.networks()
        kept = []
        method = CoTeaching(
            model, lambda o, t: kept.append(len(t)) or loss_fn(o, t), peer=peer, forget_rate=0.8
        )
        method.progress = 1.0
        method.backward(*batch(size=100))
        # 1 - 0.8 is 0.19999999999999996; the last loss is that of the whole batch, reported
        assert kept == [20, 20, 100]

    def test_each_networks_gradient_is_clipped_by_itself(self):
        model, peer = self.networks()
        method = CoTeaching(model, loss_fn, peer=peer, forget_rate=0.4)
        for network_, size in ((model, 0.1), (peer, 50.0)):
            for p in network_.parameters():
                p.grad = torch.full_like(p, size)
        before = [g.clone() for g in grads(model)]
        optimizer_step(method, torch.optim.SGD(method.parameters(), lr=0.0), 5.0)
        assert_same(grads(model), before)
        assert torch.cat([g.flatten() for g in grads(peer)]).norm() == pytest.approx(5.0)

    def test_a_loss_that_remembers_one_networks_predictions_is_refused(self):
        model, peer = self.networks()
        with pytest.raises(ValueError, match="^loss_fn: EarlyLearningRegularization remembers one network's"):
            CoTeaching(model, EarlyLearningRegularization(16, 4), peer=peer, forget_rate=0.4)

    def test_the_optimizer_trains_both_and_a_checkpoint_holds_both(self):
        model, peer = self.networks()
        method = CoTeaching(model, loss_fn, peer=peer, forget_rate=0.4)
        method.progress = 1.0
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        before = copy.deepcopy(peer.state_dict())
        method.backward(*batch())
        optimizer.step()
        assert not torch.equal(before["0.weight"], peer[0].weight)
        again = CoTeaching(network(seed=2), loss_fn, peer=network(seed=3), forget_rate=0.4)
        again.load_state_dict(method.state_dict())
        assert torch.equal(again.peer.model[0].weight, peer[0].weight)

    @pytest.mark.parametrize(
        ("settings", "field"),
        [({"forget_rate": 1.0}, "forget_rate"), ({"gradual": 0}, "gradual"), ({"peer": 1}, "peer")],
    )
    def test_bad_settings_are_named(self, settings, field):
        model, peer = self.networks()
        if "peer" in settings:
            peer = model
        settings.pop("peer", None)
        with pytest.raises(ValueError, match=f"^{field}"):
            CoTeaching(model, loss_fn, peer=peer, **{"forget_rate": 0.4, **settings})
