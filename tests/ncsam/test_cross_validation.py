"""Probabilities of networks that did not see the sample, and folds that go on after a kill."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from ncsam import (
    SAM,
    EarlyLearningRegularization,
    ELRPlus,
    Plain,
    RegCE,
    Split,
    build_model,
    confident_joint,
    corrupt_labels,
    cross_validated_probabilities,
    detect,
)
from ncsam.detection import (
    training_fingerprint,
)
from ncsam.detection.cross_validation import folds_of
from tests.ncsam.fold_networks import build


def test_cross_validated_probabilities_are_of_networks_that_did_not_see_the_sample(planted, tmp_path):
    data, labels = planted
    settings = {"epochs": 4, "batch_size": 64, "seed": 0, "folds": 3}
    seen = []
    chances = cross_validated_probabilities(
        data.train, labels, build(data), **settings, checkpoints=tmp_path, on_fold=seen.append
    )
    assert seen == [1, 2, 3]
    torch.testing.assert_close(chances.sum(1), torch.ones(len(chances)))
    found = detect(None, labels, probabilities=chances)
    (quality,) = found.quality(labels.is_wrong)
    assert quality.auroc.low > 0.9
    assert confident_joint(chances, labels.observed).noise_rate == pytest.approx(0.2, abs=0.05)
    # finished trainings are not done again
    again = cross_validated_probabilities(data.train, labels, build(data), **settings, checkpoints=tmp_path)
    assert torch.equal(again, chances)


def test_folds_drawn_with_the_seed_of_the_wrong_labels_have_wrong_labels_by_chance():
    labels = torch.arange(1_500) % 10
    spread = []
    for seed in range(30):
        noisy = corrupt_labels(labels, kind="symmetric", rate=0.4, seed=seed)
        of_sample = folds_of(noisy.observed, 5, seed)
        wrong = torch.stack([noisy.is_wrong[of_sample == fold].double().sum() for fold in range(5)])
        spread.append(wrong.var())
    # a fold's 300 samples are drawn from 1,500 of which 600 are wrong; the mean of 30 variances is known to a fifth
    by_chance = 300 * 0.4 * 0.6
    assert torch.stack(spread).mean() == pytest.approx(by_chance, rel=0.6)


def of_another_rate(build_fold, data, labels):
    def of_fold(fold):
        method, _ = build_fold(fold)
        return method, torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)

    return of_fold, data.train, labels


def of_another_optimizer(build_fold, data, labels):
    def of_fold(fold):
        method, _ = build_fold(fold)
        return method, torch.optim.Adam(method.parameters(), lr=0.05)

    return of_fold, data.train, labels


def of_other_weights(build_fold, data, labels):
    return lambda fold: build_fold(fold + 1), data.train, labels


def of_another_method(build_fold, data, labels):
    def of_fold(fold):
        method, _ = build_fold(fold)
        method = SAM(method.model, method.loss_fn, rho=0.1)
        return method, torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)

    return of_fold, data.train, labels


def of_another_loss(build_fold, data, labels):
    def of_fold(fold):
        method, optimizer = build_fold(fold)
        return Plain(method.model, nn.CrossEntropyLoss(label_smoothing=0.1)), optimizer

    return of_fold, data.train, labels


def of_other_pixels(build_fold, data, labels):
    pixels = data.train.pixels.clone()
    pixels.flatten()[7] += 1
    return build_fold, Split(pixels, data.train.targets, data.train.mean, data.train.std), labels


def of_other_labels(build_fold, data, labels):
    return build_fold, data.train, corrupt_labels(labels.clean, kind="symmetric", rate=0.2, seed=1)


@pytest.mark.parametrize(
    "other",
    [
        of_another_rate,
        of_another_optimizer,
        of_other_weights,
        of_another_method,
        of_another_loss,
        of_other_pixels,
        of_other_labels,
    ],
)
def test_folds_of_another_training_are_refused(planted, tmp_path, other):
    data, labels = planted
    settings = {"epochs": 1, "batch_size": 256, "seed": 0, "folds": 2, "checkpoints": tmp_path}
    cross_validated_probabilities(data.train, labels, build(data), **settings)
    build_other, train, observed = other(build(data), data, labels)
    with pytest.raises(ValueError, match=r"^checkpoint: .*fold-0.pt belongs to other settings"):
        cross_validated_probabilities(train, observed, build_other, **settings)


def test_options_of_a_method_and_of_a_loss_are_in_its_fingerprint(planted):
    data, labels = planted
    model = build(data)(0)[0].model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    smoothed = partial(nn.functional.cross_entropy, label_smoothing=0.1)
    methods = [
        Plain(model, nn.functional.cross_entropy),
        Plain(model, smoothed),
        SAM(model, smoothed, rho=0.1),
        SAM(model, smoothed, rho=0.2),
    ]
    found = [training_fingerprint(each, optimizer, data.train, labels.observed) for each in methods]
    assert len(set(found)) == len(methods)
    assert training_fingerprint(methods[0], optimizer, data.train, labels.observed) == found[0]


def test_folds_and_divergence_are_refused_by_name(planted):
    data, labels = planted
    settings = {"epochs": 1, "batch_size": 64, "seed": 0}
    with pytest.raises(ValueError, match="^folds: must be from 2"):
        cross_validated_probabilities(data.train, labels, build(data), folds=1, **settings)

    def diverges(fold):
        method, _ = build(data)(fold)
        return method, torch.optim.SGD(method.parameters(), lr=1e30)

    with pytest.raises(ValueError, match="^build: the training without fold 0 diverged"):
        cross_validated_probabilities(data.train, labels, diverges, folds=2, **settings)


def of_one_network(model, optimizer, loss):
    return lambda _: (Plain(model, loss), torch.optim.SGD(model.parameters(), lr=0.05))


def of_one_optimizer(model, optimizer, loss):
    def build_fold(fold):
        other = copy.deepcopy(model)
        optimizer.add_param_group({"params": other.parameters()})
        return Plain(other, loss), optimizer

    return build_fold


def of_one_memory(model, optimizer, loss):
    memory = EarlyLearningRegularization(40, 10)

    def build_fold(fold):
        other = copy.deepcopy(model)
        return Plain(other, memory), torch.optim.SGD(other.parameters(), lr=0.05)

    return build_fold


@pytest.mark.parametrize("shared", [of_one_network, of_one_optimizer, of_one_memory])
def test_what_an_earlier_fold_trained_is_refused(planted, shared):
    """Else it would be tested on labels that it learned."""
    data, labels = planted
    model = build_model("mlp", data.input_shape, 10, seed=0, hidden=[8])
    build_fold = shared(model, torch.optim.SGD(model.parameters(), lr=0.05), nn.CrossEntropyLoss())
    places, finished = torch.arange(40), []
    with pytest.raises(ValueError, match=r"^build: fold 1 has the .* make a new network, method, loss"):
        cross_validated_probabilities(
            data.train.take(places),
            labels.take(places),
            build_fold,
            epochs=1,
            batch_size=20,
            seed=0,
            folds=2,
            on_fold=finished.append,
        )
    assert finished == [1]


def test_folds_may_share_a_frozen_body(planted):
    data, labels = planted
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8)).requires_grad_(False)
    places = torch.arange(40)

    def build_fold(fold):
        method = Plain(nn.Sequential(body, nn.Linear(8, 10)), nn.CrossEntropyLoss())
        return method, torch.optim.SGD(method.parameters(), lr=0.05)

    settings = {"epochs": 1, "batch_size": 20, "seed": 0, "folds": 2}
    chances = cross_validated_probabilities(
        data.train.take(places), labels.take(places), build_fold, **settings
    )
    assert chances.shape == (40, 10)


def of_average(model, _, samples):
    return RegCE(model, nn.CrossEntropyLoss(), decay=0.9)


def of_two_averages(model, peer, samples):
    return ELRPlus(model, nn.CrossEntropyLoss(), peer=peer, samples=samples, seed=0, decay=0.9)


@pytest.mark.parametrize("make", [of_average, of_two_averages])
def test_a_fold_is_predicted_by_what_the_method_predicts_with(planted, make):
    data, labels = planted
    train, labels = data.train.take(torch.arange(200)), labels.take(torch.arange(200))
    methods = []

    def build_fold(fold):
        networks = [build_model("mlp", data.input_shape, 10, seed=seed, hidden=[8]) for seed in (fold, 9)]
        methods.append(make(*networks, samples=200))
        return methods[-1], torch.optim.SGD(methods[-1].parameters(), lr=0.05)

    chances = cross_validated_probabilities(
        train, labels, build_fold, epochs=2, batch_size=50, seed=0, folds=2
    )
    candidates = []
    for method in methods:
        averages = getattr(method, "averages", None) or [method.average]
        with torch.no_grad():
            outputs = [average.network.eval()(train.inputs) for average in averages]
        candidates.append((sum(outputs) / len(outputs)).softmax(1))
    is_of = [torch.isclose(chances, candidate, atol=1e-6).all(1) for candidate in candidates]
    assert (is_of[0] | is_of[1]).all()
    assert [int(each.sum()) for each in is_of] == [100, 100]
