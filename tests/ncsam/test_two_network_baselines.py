"""ELR+, DivideMix, AUM filtering and RegCE, against plain re-implementations of their equations."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from ncsam import CORES2, PES, SOP, AUMFilter, CleanSAM, DivideMix, ELRPlus, RegCE, build_method, predict
from ncsam.methods import method as base
from ncsam.methods.aum import margins_of
from ncsam.methods.dividemix import chances_of_small
from ncsam.methods.mixtures import Mixture
from ncsam.methods.training_set import TrainingSet
from ncsam.random_state import generator_from
from tests.ncsam.small_network import batch, grads, loss_fn, network
from tests.ncsam.small_training import train

RATE = 0.1


def at(method, progress, epoch_share=0.05):
    method.progress, method.epoch_share = progress, epoch_share
    return method


def softmax(scores):
    return scores.exp() / scores.exp().sum(1, keepdim=True)


def one_hot(labels):
    return torch.eye(4, dtype=torch.float64)[labels]


def descend(network_, loss):
    for p, g in zip(
        network_.parameters(), torch.autograd.grad(loss, list(network_.parameters())), strict=True
    ):
        p.data -= RATE * g


def mixed(mixture, rows):
    return torch.stack(
        [
            mixture.share * row + (1 - mixture.share) * rows[other]
            for row, other in zip(rows, mixture.partner.tolist(), strict=True)
        ]
    )


def assert_same_networks(method, twins):
    for ours, theirs in zip(method.networks(), twins, strict=True):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_a_mixture_has_the_larger_share_of_each_row():
    rows = torch.arange(6.0).view(3, 2)
    for step in range(20):
        mixture = Mixture.drawn(rows, 1.0, generator_from(0, step))
        assert 0.5 <= mixture.share <= 1
        torch.testing.assert_close(mixture.of(rows), mixed(mixture, rows).float())
    with pytest.raises(ValueError, match="^inputs: only tensors of floating-point numbers"):
        Mixture.drawn(torch.ones(3, 2, dtype=torch.int64), 1.0, generator_from(0, 0))


class TestELRPlus:
    def test_two_updates_are_those_of_the_equations(self):
        model, peer = network(), network(seed=1)
        twins = [copy.deepcopy(model), copy.deepcopy(peer)]
        averages = [copy.deepcopy(model), copy.deepcopy(peer)]
        remembered = [torch.zeros(20, 4, dtype=torch.float64) for _ in range(2)]
        method = at(ELRPlus(model, loss_fn, peer=peer, samples=20, seed=7, ramp=0.5), 0.3)
        optimizer = torch.optim.SGD(method.parameters(), lr=RATE)
        decay = 0.997 * math.exp(-5 * (1 - 0.3 / 0.5) ** 2)
        for number, indices in enumerate((torch.arange(16), torch.arange(4, 20))):
            inputs, targets = batch(number)
            optimizer.zero_grad()
            method.backward(inputs, targets, indices)
            optimizer.step()
            method.after_step()
            generator = generator_from(7, number)
            for k in range(2):
                mixture = Mixture.drawn(inputs, 1.0, generator)
                with torch.no_grad():
                    p = softmax(averages[1 - k](inputs))
                remembered[k][indices] = 0.7 * remembered[k][indices] + 0.3 * p
                scores = twins[k](mixed(mixture, inputs))
                q, y = mixed(mixture, remembered[k][indices]), mixed(mixture, one_hot(targets))
                own = softmax(scores)
                entropy = -(y * own.log()).sum() / 16
                descend(twins[k], entropy + 3 * (1 - (q * own).sum(1)).log().sum() / 16)
            for average, twin in zip(averages, twins, strict=True):
                for a, b in zip(average.parameters(), twin.parameters(), strict=True):
                    a.data = decay * a.data + (1 - decay) * b.data
        assert_same_networks(method, twins)
        for ours, theirs in zip(method.predictors(), averages, strict=True):
            for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(method.targets, remembered)
        # each network: a gradient, and a forward pass of the other's average
        assert method.gradient_count == pytest.approx(2 * (2 + 2 / 3))

    def test_its_decay_grows_to_the_whole_one(self):
        method = ELRPlus(network(), loss_fn, peer=network(seed=1), samples=16, seed=0)
        decays = [at(method, share).decay_now() for share in (0, 0.25, 0.5, 1)]
        assert decays == pytest.approx([0.997 * math.exp(-5), 0.997 * math.exp(-1.25), 0.997, 0.997])


class TestDivideMix:
    def test_two_updates_are_those_of_the_equations(self):
        model, peer = network(), network(seed=1)
        twins = [copy.deepcopy(model), copy.deepcopy(peer)]
        method = at(DivideMix(model, loss_fn, peer=peer, seed=7, weight=5.0, ramp=0.2, warmup=0.1), 0.25)
        chances = [torch.rand(20, generator=torch.Generator().manual_seed(k)).double() for k in range(2)]
        method.chances = chances
        weight = 5.0 * (0.25 - 0.05 - 0.1) / 0.2
        optimizer = torch.optim.SGD(method.parameters(), lr=RATE)
        for number, indices in enumerate((torch.arange(16), torch.arange(4, 20))):
            inputs, targets = batch(number)
            optimizer.zero_grad()
            method.backward(inputs, targets, indices)
            generator = generator_from(7, number)
            losses = []
            for k in range(2):
                with torch.no_grad():
                    own, other = softmax(twins[k](inputs)), softmax(twins[1 - k](inputs))
                w = chances[1 - k][indices]
                kept = [i for i in range(16) if w[i] > 0.5]
                guessed = [i for i in range(16) if w[i] <= 0.5]
                assert kept
                assert guessed
                learned = {i: w[i] * one_hot(targets)[i] + (1 - w[i]) * own[i] for i in kept}
                learned |= {i: (own[i] + other[i]) / 2 for i in guessed}
                learned = {i: t**2 / (t**2).sum() for i, t in learned.items()}
                order = kept + guessed
                mixture = Mixture.drawn(inputs, 4.0, generator)
                goals = mixed(mixture, torch.stack([learned[i] for i in order]))
                p = softmax(twins[k](mixed(mixture, inputs[order])))
                n = len(kept)
                loss = -(goals[:n] * p[:n].log()).sum() / n
                loss = loss + weight * ((p[n:] - goals[n:]) ** 2).sum() / (4 * (16 - n))
                losses.append(loss + sum(0.25 * torch.log(0.25 / p[:, c].mean()) for c in range(4)))
            for twin, loss in zip(twins, losses, strict=True):
                descend(twin, loss)
            optimizer.step()
        assert_same_networks(method, twins)

    def test_the_mixture_model_finds_the_small_losses(self):
        generator = np.random.default_rng(0)
        small, large = generator.normal(0.5, 0.1, 300), generator.normal(3.0, 0.4, 100)
        losses = torch.from_numpy(np.concatenate([small, large]))
        chances = chances_of_small(losses, seed=0)
        assert (chances[:300] > 0.9).all()
        assert (chances[300:] < 0.1).all()

    @pytest.mark.parametrize(
        "losses", [torch.ones(5), torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.inf])]
    )
    def test_losses_that_say_nothing_keep_all_labels(self, losses):
        assert (chances_of_small(losses, seed=0) == 1).all()

    def test_before_an_epoch_it_divides_by_the_losses_of_each_network(self):
        method = at(DivideMix(network(), loss_fn, peer=network(seed=1), seed=0, warmup=0.1), 0.5)
        inputs, targets = batch(size=64)
        method.before_epoch(TrainingSet(targets, lambda each: each(inputs).detach(), 16, 0))
        for chances, each in zip(method.chances, method.networks(), strict=True):
            losses = nn.functional.cross_entropy(each(inputs), targets, reduction="none")
            assert chances[losses.argmin()] > chances[losses.argmax()]
        # two forward passes over 64 samples, in gradients of 16
        assert method.gradient_count == pytest.approx(2 * 4 / 3)

    def test_the_other_network_guesses_in_evaluation_mode(self):
        both = [network(batch_norm=True, seed=seed) for seed in (0, 1)]
        method = at(DivideMix(both[0], loss_fn, peer=both[1], seed=0, warmup=0.1), 0.5)
        method.chances = [torch.rand(16).double()] * 2
        seen = [[], []]
        for each, modes in zip(both, seen, strict=True):
            each[1].register_forward_hook(lambda *call, modes=modes: modes.append(call[0].training))
        method.backward(*batch(), torch.arange(16))
        # its own guesses and its step, and the guesses for the other one
        assert seen == [[True, True, False], [False, True, True]]

    @pytest.mark.parametrize("kept", [0.0, 1.0])
    def test_a_batch_of_one_sort_has_a_gradient(self, kept):
        method = at(DivideMix(network(), loss_fn, peer=network(seed=1), seed=0, warmup=0.1), 0.5)
        method.chances = [torch.full((16,), kept, dtype=torch.float64)] * 2
        method.backward(*batch(), torch.arange(16))
        assert all(g.isfinite().all() and g.any() for each in method.networks() for g in grads(each))

    def test_warming_up_both_networks_learn_as_usual(self):
        model, peer = network(), network(seed=1)
        method = at(DivideMix(model, loss_fn, peer=peer, seed=0, warmup=0.3), 0.3)
        method.before_epoch(TrainingSet(batch()[1], lambda _: pytest.fail("looked at the samples"), 16, 0))
        method.backward(*batch(), torch.arange(16))
        for each in (model, peer):
            expected = torch.autograd.grad(loss_fn(each(batch()[0]), batch()[1]), list(each.parameters()))
            torch.testing.assert_close(grads(each), list(expected))


class TestAUMFilter:
    def test_it_ranks_by_the_mean_margin_and_leaves_the_smallest_out(self):
        model, peer = network(), network(seed=1)
        twins = [copy.deepcopy(model), copy.deepcopy(peer)]
        method = AUMFilter(model, loss_fn, peer=peer, samples=16, removed=0.25, ranking=0.5)
        optimizer = torch.optim.SGD(method.parameters(), lr=RATE)
        inputs, targets = batch()
        margins = np.zeros(16)
        for progress in (0.25, 0.5, 0.75, 1.0):
            at(method, progress)
            optimizer.zero_grad()
            method.backward(inputs, targets, torch.arange(16))
            optimizer.step()
            if progress <= 0.5:
                scores = twins[1](inputs)
                for i, (row, label) in enumerate(zip(scores.tolist(), targets.tolist(), strict=True)):
                    margins[i] += row[label] - max(s for c, s in enumerate(row) if c != label)
                descend(twins[1], loss_fn(scores, targets))
                assert method.predictors() == [peer]
            else:
                kept = np.argsort(margins)[4:].copy()
                descend(twins[0], loss_fn(twins[0](inputs[kept]), targets[kept]))
                assert method.predictors() == [model]
        assert_same_networks(method, twins)
        assert sorted(method.kept().nonzero().flatten().tolist()) == sorted(kept.tolist())
        assert method.gradient_count == pytest.approx(1 + 1 + 2 * 12 / 16)

    def test_what_is_kept_is_chosen_once_and_anew_after_more_ranking_and_after_a_resume(self):
        method = at(AUMFilter(network(), loss_fn, peer=network(seed=1), samples=16, removed=0.25), 0.25)
        method.backward(*batch(), torch.arange(16))
        first = method.kept()
        assert method.kept() is first
        method.backward(*batch(), torch.arange(16))
        assert method.kept() is not first
        other = AUMFilter(network(), loss_fn, peer=network(seed=1), samples=16, removed=0.25)
        assert other.kept().all()
        other.load_state_dict(method.state_dict())
        assert torch.equal(other.kept(), method.kept())

    def test_a_batch_of_which_nothing_is_kept_has_no_gradient(self):
        method = at(AUMFilter(network(), loss_fn, peer=network(seed=1), samples=32, removed=0.5), 1.0)
        method.margins[:16] = -1
        method.seen[:] = 1
        method.backward(*batch(), torch.arange(16))
        assert all(g is None for g in grads(method.model))

    def test_the_mean_margin_of_a_sample_that_a_batch_holds_twice_is_of_both(self):
        inputs, targets = batch()
        method = at(AUMFilter(network(), loss_fn, peer=network(seed=1), samples=16, removed=0.25), 0.25)
        method.backward(inputs, targets, torch.zeros(16, dtype=torch.int64))
        with torch.no_grad():
            margins = margins_of(network(seed=1)(inputs), targets)
        assert method.seen.tolist() == [16] + [0] * 15
        assert method.margins[0].item() == pytest.approx(margins.sum().item())

    def test_a_pass_that_overflowed_says_nothing_of_its_samples(self):
        inputs, targets = batch()
        ranked = {}
        for name, overflows in (("once", True), ("never", False)):
            method = AUMFilter(network(), loss_fn, peer=network(seed=1), samples=16, removed=0.25)
            at(method, 0.25).backward(inputs, targets, torch.arange(16))
            if overflows:
                method.backward(inputs * float("inf"), targets, torch.arange(16))
            ranked[name] = method.kept()
        assert torch.equal(ranked["once"], ranked["never"])
        assert ranked["once"].sum() == 12

    def test_a_single_kept_sample_is_taken_for_none_where_batch_norm_cannot_take_it(self):
        method = AUMFilter(network(batch_norm=True), loss_fn, peer=network(seed=1), samples=16, removed=0.93)
        method.margins[3] = 1.0
        method.seen[:] = 1
        assert int(method.removed * 16) == 14
        at(method, 1.0).backward(batch()[0][:4], batch()[1][:4], torch.arange(4))
        assert all(g is None for g in grads(method.model))


class TestRegCE:
    def test_its_average_is_the_mean_first_and_follows_exponentially_then(self):
        model = network(batch_norm=True)
        method = RegCE(model, loss_fn, decay=0.6)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        seen = []
        for step in range(4):
            optimizer.zero_grad()
            method.backward(*batch(step))
            optimizer.step()
            method.after_step()
            seen.append({name: t.clone() for name, t in model.state_dict().items()})
        (predictor,) = method.predictors()
        for name, found in predictor.state_dict().items():
            if not found.is_floating_point():
                assert torch.equal(found, seen[-1][name])
                continue
            average = (seen[0][name] + seen[1][name]) / 2
            for later in seen[2:]:
                average = 0.6 * average + 0.4 * later[name]
            torch.testing.assert_close(found, average)
        assert not torch.equal(predictor[0].weight, model[0].weight)


MAKERS = {
    "elr-plus": lambda m, p, loss=loss_fn, **o: ELRPlus(m, loss, peer=p, samples=16, seed=0, **o),
    "dividemix": lambda m, p, loss=loss_fn, **o: DivideMix(m, loss, peer=p, seed=0, **o),
    "aum-filter": lambda m, p, **o: AUMFilter(m, loss_fn, peer=p, samples=16, removed=0.2, **o),
}


@pytest.mark.parametrize("name", MAKERS)
def test_they_need_positions_a_peer_and_whole_batches(name):
    model, peer = network(), network(seed=1)
    method = at(MAKERS[name](model, peer), 0.4)
    with pytest.raises(ValueError, match="^indices: "):
        method.backward(*batch())
    if name == "dividemix":
        with pytest.raises(ValueError, match="^before_epoch: "):
            method.backward(*batch(), torch.arange(16))
        method.chances = [torch.ones(16)] * 2
    method.passes.micro_batch_size = 4
    with pytest.raises(ValueError, match="^micro_batch_size"):
        method.backward(*batch(), torch.arange(16))
    with pytest.raises(ValueError, match="^peer: must be another network"):
        MAKERS[name](model, model)
    options = {"removed": 0.2} if name == "aum-filter" else {}
    with pytest.raises(ValueError, match="^peer: method .* needs a second network"):
        build_method(name, model, loss_fn, seed=0, clean_targets=batch()[1], **options)


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("elr-plus", {"strength": -1}, "strength"),
        ("elr-plus", {"momentum": 1}, "momentum"),
        ("elr-plus", {"mixing": 0}, "mixing"),
        ("elr-plus", {"ramp": 2}, "ramp"),
        ("dividemix", {"weight": -1}, "weight"),
        ("dividemix", {"threshold": 2}, "threshold"),
        ("dividemix", {"temperature": 0}, "temperature"),
        ("aum-filter", {"removed": 1}, "removed"),
        ("aum-filter", {"ranking": 1}, "ranking"),
    ],
)
def test_settings_out_of_range_are_named(name, options, field):
    make = {
        **MAKERS,
        "aum-filter": lambda m, p, **o: AUMFilter(m, loss_fn, peer=p, samples=16, **{"removed": 0.2, **o}),
    }[name]
    with pytest.raises(ValueError, match=f"^{field}"):
        make(network(), network(seed=1), **options)


@pytest.mark.parametrize("ignored", [0, 3, 255])
@pytest.mark.parametrize(
    "make",
    [
        MAKERS["elr-plus"],
        MAKERS["dividemix"],
        lambda m, _, loss: SOP(m, loss, samples=16, seed=0),
        lambda m, _, loss: PES(m, loss, first=0.2, second=0.2, third=0.2, latter=1),
        lambda m, _, loss: CORES2(m, loss),
    ],
)
def test_a_class_that_the_loss_ignores_is_not_learned_without_a_word(make, ignored):
    method = make(network(), network(seed=1), nn.CrossEntropyLoss(ignore_index=-1))
    assert method.loss_fn.ignore_index == -1
    with pytest.raises(ValueError, match=f"loss_fn: ignores the label {ignored}, but .* would learn it"):
        make(network(), network(seed=1), nn.CrossEntropyLoss(ignore_index=ignored))


def clean_sam(model, _):
    return CleanSAM(model, loss_fn, rho=0.1, clean_targets=batch()[1])


@pytest.mark.parametrize("name", [*MAKERS, "clean-sam"])
def test_they_are_refused_on_several_processes(name, monkeypatch):
    make = {**MAKERS, "clean-sam": clean_sam}[name]
    make(network(), network(seed=1))
    monkeypatch.setattr(base, "has_ranks", lambda _: True)
    with pytest.raises(ValueError, match="^model: runs in several processes .* remembers samples or draws"):
        make(network(), network(seed=1))


@pytest.mark.parametrize(
    ("kind", "count"), [("dividemix", 2), ("elr-plus", 2), ("regce", 1), ("aum-filter", 1)]
)
def test_a_history_is_of_the_mean_outputs_of_the_predictors(digits, kind, count):
    dataset, _ = digits
    history, method = train(digits, kind, epochs=2)
    outputs = [predict(network_, dataset.test) for network_ in method.predictors()]
    assert len(outputs) == count
    assert method.predicts_by_several == (count > 1)
    mean = sum(outputs) / count
    accuracy = (mean.argmax(1) == dataset.test.targets).double().mean().item()
    assert history.metrics["test_accuracy"][-1] == pytest.approx(accuracy)
    # and not of the trained model alone
    alone = predict(method.model, dataset.test)
    assert not torch.equal(alone, mean) or kind == "aum-filter"
