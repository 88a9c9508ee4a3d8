"""Samples whose label the loss ignores: methods that choose samples leave them out, and learn from all others."""

import dataclasses

import pytest
import torch
from torch import nn

from ncsam import ClusterNCSAM, CoTeaching, fit
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
