"""Every method composes with micro-batches, autocast, loss scaling, DistributedDataParallel and torch.compile."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ncsam import BSAM, GSAM, NCSAM, SAM, CoTeaching, OracleSAM, Plain
from tests.ncsam.small_network import assert_same, batch, gradient_at, grads, loss_fn, network, weights_of
from tests.ranks import joined, on_two_ranks

METHODS = {
    "plain": lambda m: Plain(m, loss_fn),
    "sam": lambda m: SAM(m, loss_fn, rho=0.3),
    "gsam": lambda m: GSAM(m, loss_fn, rho=0.3),
    "bsam": lambda m: BSAM(m, loss_fn, rho=0.3),
    "ncsam": lambda m: NCSAM(m, loss_fn, rho=0.3, flip_ratio=0.4, strength=0.2, warmup=0.0),
    "oracle": lambda m: OracleSAM(m, loss_fn, rho=0.3, clean_targets=batch(seed=5)[1]),
}


def stepped(name, model, configure=lambda _: None):
    """The method after one step on the batch of seed 0."""
    method = METHODS[name](model)
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
    calls = []

    def overflowing(outputs, targets):
        calls.append(1)
        return loss_fn(outputs, targets) * (float("inf") if len(calls) == 1 + overflow_in else 1.0)

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


def test_a_compiled_model_gives_the_same_gradients():
    model, plain = network(batch_norm=True), network(batch_norm=True)
    stepped("ncsam", torch.compile(model, backend="aot_eager"))
    stepped("ncsam", plain)
    assert_same(grads(model), grads(plain))
    assert_same(
        [b for b in model.buffers() if b.is_floating_point()],
        [b for b in plain.buffers() if b.is_floating_point()],
    )


def _rank(rank, port, name, average, directory):
    with joined(rank, port):
        reduced = []
        original = dist.all_reduce

        def counted(*arguments, **options):
            reduced.append(1)
            return original(*arguments, **options)

        dist.all_reduce = counted
        model = network()
        inputs, targets = batch()
        own = slice(8 * rank, 8 * rank + 8)
        method = METHODS[name](DistributedDataParallel(model))
        method.progress = 1.0
        method.passes.average_over_ranks = average
        method.backward(inputs[own], targets[own], torch.arange(16)[own])
        torch.save([[p.grad for p in model.parameters()], len(reduced)], f"{directory}/{rank}.pt")


def gradients_of_ranks(tmp_path, name, average):
    on_two_ranks(_rank, name, average, str(tmp_path))
    return [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", ["sam", "bsam"])
def test_ranks_that_average_every_gradient_equal_one_process(tmp_path, name):
    ranks = gradients_of_ranks(tmp_path, name, average=True)
    model = network()
    stepped(name, model)
    for gradients, _ in ranks:
        assert_same(gradients, grads(model))


@pytest.mark.parametrize(("name", "own_reductions"), [("ncsam", 0), ("gsam", 1)])
def test_ranks_perturb_by_their_own_part_and_reduce_once(tmp_path, name, own_reductions):
    # NCSAM leaves the reduction to DistributedDataParallel, GSAM puts its gradient together and reduces it
    ranks = gradients_of_ranks(tmp_path, name, average=False)
    parts = []
    for rank in (0, 1):
        model = network()
        inputs, targets = batch()
        own = slice(8 * rank, 8 * rank + 8)
        method = METHODS[name](model)
        method.progress = 1.0
        method.backward(inputs[own], targets[own])
        parts.append(grads(model))
    for gradients, reductions in ranks:
        assert_same(gradients, [(a + b) / 2 for a, b in zip(*parts, strict=True)])
        assert reductions == own_reductions


class TestCoTeaching:
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
