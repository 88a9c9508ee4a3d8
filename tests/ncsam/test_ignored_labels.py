"""Samples whose label the loss ignores: methods that choose samples leave them out, and learn from all others."""

import dataclasses

import pytest
import torch
from torch import nn

import landscape
import ncsam
from ncsam import ClusterNCSAM, CoTeaching, fit
from ncsam.methods import CORES2, SOP, AUMFilter, DivideMix, ELRPlus, OracleSAM, Plain
from tests.ncsam.small_network import COMPENSATED, assert_same, batch, grads, network
from tests.ncsam.small_training import prepare, train

HALF = torch.arange(16) % 2 == 0


def with_ignored(targets, label):
    return targets.masked_fill(HALF, label)


def co_teaching(loss_fn, forget_rate=0.5):
    method = CoTeaching(network(), loss_fn, peer=network(seed=1), forget_rate=forget_rate, gradual=0.1)
    method.progress, method.epoch_share = 1.0, 0.05
    return method


def cluster_ncsam(loss_fn):
    method = ClusterNCSAM(network(), loss_fn, **{**COMPENSATED, "flip_ratio": 0.9, "warmup": 0.0})
    method.progress = 1.0
    return method


@pytest.mark.parametrize("make", [co_teaching, cluster_ncsam])
@pytest.mark.parametrize("ignored", [-100, 255])
def test_a_step_is_that_of_the_samples_with_labels(make, ignored):
    inputs, targets = batch()
    method, of_labeled = (make(nn.CrossEntropyLoss(ignore_index=ignored)) for _ in range(2))
    found = method.backward(inputs, with_ignored(targets, ignored))
    expected = of_labeled.backward(inputs[~HALF], targets[~HALF])
    torch.testing.assert_close(found, expected)
    for own, other in zip(method.networks(), of_labeled.networks(), strict=True):
        assert_same(grads(own), grads(other))
        assert any(gradient.abs().sum() > 0 for gradient in grads(own))


def test_the_samples_that_a_loss_of_the_callers_own_may_ignore_are_not_chosen():
    inputs, targets = batch()
    method = co_teaching(lambda outputs, labels: nn.functional.cross_entropy(outputs, labels))
    expected = co_teaching(nn.CrossEntropyLoss())
    for each in (method, expected):
        each.backward(inputs, with_ignored(targets, -100))
    assert_same(grads(method.model), grads(expected.model))


@pytest.mark.parametrize("make", [co_teaching, cluster_ncsam])
def test_a_batch_without_labels_has_a_gradient_of_zero(make):
    inputs, targets = batch()
    method = make(nn.CrossEntropyLoss())
    method.backward(inputs, torch.full_like(targets, -100))
    assert all((gradient == 0).all() for own in method.networks() for gradient in grads(own))


@pytest.mark.parametrize("make", [co_teaching, cluster_ncsam])
def test_classes_of_positions_are_refused(make):
    with pytest.raises(ValueError, match=f"^targets: {type(make(nn.CrossEntropyLoss())).__name__} "):
        make(nn.CrossEntropyLoss()).backward(batch()[0], torch.zeros(16, 3, dtype=torch.int64))


@pytest.fixture
def half_ignored(digits):
    dataset, labels = digits
    observed = labels.observed.clone()
    observed[::2] = -100
    return dataset, dataclasses.replace(labels, observed=observed)


@pytest.mark.parametrize("kind", ["co-teaching", "cluster-ncsam"])
def test_a_training_with_ignored_labels_learns(half_ignored, kind):
    dataset, labels = half_ignored
    if kind == "co-teaching":
        history, _ = train(half_ignored, kind)
    else:
        model = prepare(dataset, "plain")[0].model
        method = ClusterNCSAM(model, nn.CrossEntropyLoss(), **COMPENSATED)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
        history = fit(
            method, optimizer, dataset.train, labels, dataset.test, epochs=6, batch_size=128, seed=0
        )
    # the loss on observed labels rises where a method does not learn the wrong ones
    accuracies = history.metrics["test_accuracy"]
    assert accuracies[-1] > max(0.5, accuracies[0])


def test_ignored_labels_are_not_mixed(half_ignored):
    with pytest.raises(ValueError, match="^labels: the observed label of sample 0 is -100"):
        train(half_ignored, "plain", mixup_alpha=1.0)


TRANSITION = torch.tensor(
    [[0.7, 0.3, 0.0, 0.0], [0.0, 0.6, 0.4, 0.0], [0.0, 0.0, 0.8, 0.2], [0.1, 0.0, 0.0, 0.9]],
    dtype=torch.float64,
)
LOSSES = ["gce", "sce", "confidence-penalty", "forward", "elr", "sln"]


def loss_of(name):
    """A loss for 16 samples of 4 classes in float64, with random memories."""
    loss = ncsam.build_loss(name, samples=16, classes=4, transition=TRANSITION).double()
    generator = torch.Generator().manual_seed(2)
    for table in (each for each in loss.buffers() if each.shape[0] == 16):
        table.copy_(torch.rand(table.shape, generator=generator, dtype=torch.float64) / 4)
    return loss


def rows_for(name, rows):
    """What the loss takes beside outputs and labels."""
    return (torch.arange(16)[rows],) if name in ("elr", "sln") else ()


def scores():
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(16, 4, dtype=torch.float64, generator=generator)
    return outputs.requires_grad_(), torch.randint(0, 4, (16,), generator=generator)


@pytest.mark.parametrize("name", LOSSES)
def test_a_robust_loss_is_the_mean_over_the_samples_with_labels(name):
    outputs, targets = scores()
    loss = loss_of(name)
    found = loss(outputs, with_ignored(targets, -100), *rows_for(name, slice(None)))
    gradient = torch.autograd.grad(found, outputs)[0]
    expected = loss(outputs[~HALF], targets[~HALF], *rows_for(name, ~HALF))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, outputs)[0], rtol=1e-12, atol=1e-16)
    assert (gradient[HALF] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_robust_loss_of_no_label_is_that_of_torch(name):
    outputs, targets = scores()
    for loss, more in ((loss_of(name), rows_for(name, slice(None))), (nn.CrossEntropyLoss(), ())):
        found = loss(outputs, torch.full_like(targets, -100), *more)
        assert found.isnan()
        assert (torch.autograd.grad(found, outputs)[0] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_label_that_is_neither_a_class_nor_ignored_is_no_class_from_the_end(name):
    outputs, targets = scores()
    with pytest.raises((IndexError, RuntimeError)):
        loss_of(name)(outputs, targets.masked_fill(HALF, -1), *rows_for(name, slice(None)))


@pytest.mark.parametrize("name", ["gce", "sce", "confidence-penalty", "forward", "elr"])
def test_micro_batches_of_a_robust_loss_are_weighted_by_their_labels(name):
    inputs, targets = batch()
    ignored = targets.clone()
    ignored[1:6] = -100
    found = []
    for size in (None, 5):
        method = Plain(network(), loss_of(name))
        method.passes.micro_batch_size = size
        found.append((method.backward(inputs, ignored, torch.arange(16)), grads(method.model)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=0)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["gce", "sce", "confidence-penalty", "forward"])
def test_an_objective_counts_the_labels_of_a_robust_loss(name):
    inputs, targets = batch()
    model, loss, ignored = network(), loss_of(name), targets.clone()
    ignored[1:6] = -100
    kept = ignored >= 0
    found = landscape.Objective(model, loss, (inputs, ignored), chunk_size=5)
    expected = landscape.Objective(model, loss, (inputs[kept], targets[kept]))
    assert found.value() == pytest.approx(expected.value(), rel=1e-12)
    assert found.evaluate().accuracy == pytest.approx(expected.evaluate().accuracy)
    torch.testing.assert_close(found.gradient(), expected.gradient(), rtol=1e-10, atol=1e-14)


def own_losses(name):
    """A method that makes losses of its own, and that looks at single samples now."""
    if name == "cores2":
        method = CORES2(network(), nn.CrossEntropyLoss())
    elif name == "sop":
        method = SOP(network(), nn.CrossEntropyLoss(), samples=16, seed=0, scale=0.1)
    else:
        wrong = (batch()[1] + torch.arange(16) % 3) % 4
        method = OracleSAM(network(), nn.CrossEntropyLoss(), rho=0.5, clean_targets=wrong)
    method.progress, method.epoch_share = 1.0, 0.1
    return method


@pytest.mark.parametrize("name", ["cores2", "sop", "oracle-sam"])
def test_a_step_of_a_method_with_losses_of_its_own_is_that_of_the_samples_with_labels(name):
    inputs, targets = batch()
    method, of_labeled = own_losses(name), own_losses(name)
    positions = torch.arange(16)
    for _ in range(2):
        found = method.backward(inputs, with_ignored(targets, -100), positions)
        expected = of_labeled.backward(inputs[~HALF], targets[~HALF], positions[~HALF])
        torch.testing.assert_close(found, expected)
        assert_same(grads(method.model), grads(of_labeled.model))
    if name == "sop":
        torch.testing.assert_close(method.noise_v, of_labeled.noise_v)
        torch.testing.assert_close(method.noise_u, of_labeled.noise_u)
    method.backward(inputs, torch.full_like(targets, -100), positions)


def needs_all_labels(name):
    two = network(), nn.CrossEntropyLoss()
    if name == "elr-plus":
        return ELRPlus(*two, peer=network(seed=1), samples=16, seed=0)
    if name == "aum":
        return AUMFilter(*two, peer=network(seed=1), samples=16, removed=0.25)
    method = DivideMix(*two, peer=network(seed=1), seed=0, warmup=0.0)
    method.chances = [torch.full((16,), 0.7)] * 2
    return method


@pytest.mark.parametrize("name", ["elr-plus", "aum", "dividemix"])
def test_methods_that_need_a_label_of_each_sample_name_the_one_without(name):
    inputs, targets = batch()
    method = needs_all_labels(name)
    method.progress, method.epoch_share = 0.05, 0.05
    with pytest.raises(ValueError, match=r"^targets: sample 0 of the batch has the label -100"):
        method.backward(inputs, with_ignored(targets, -100), torch.arange(16))
