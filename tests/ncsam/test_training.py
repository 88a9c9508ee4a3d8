"""fit(): history, augmentation, edges and errors."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ncsam import (
    Augmentation,
    Plain,
    Split,
    build_model,
    corrupt_labels,
    fit,
    predict,
)
from ncsam.memorization import memorized_share, recovered_share
from tests.ncsam.small_training import loss_fn, prepare, train


def test_the_callers_random_state_is_left_alone(digits):
    dataset, labels = digits
    method, optimizer, _ = prepare(dataset, "dropout")
    before = torch.get_rng_state()
    fit(method, optimizer, dataset.train, labels, dataset.test, epochs=1, batch_size=128, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_mixup_and_clipping_change_the_training(digits):
    plain = train(digits, "sam", epochs=2)[1].model.state_dict()
    for options in (
        {"augmentation": Augmentation(crop=1)},
        {"mixup_alpha": 1.0},
        {"max_gradient_norm": 0.1},
    ):
        changed = train(digits, "sam", epochs=2, **options)[1].model.state_dict()
        assert not torch.equal(changed["1.weight"], plain["1.weight"]), options


def test_mixed_batches_have_no_true_labels_to_align_with(digits):
    history, _ = train(digits, "sam", epochs=1, alignment_batches=1, mixup_alpha=1.0)
    assert np.isnan(history.metrics["cos_sam_clean"]).all()
    with pytest.raises(ValueError, match="^targets: NCSAM"):
        train(digits, "ncsam", epochs=1, mixup_alpha=1.0)


@pytest.mark.parametrize(("name", "label"), [("observed", 10), ("clean", -1), ("held_out", 12)])
def test_labels_outside_the_models_classes_are_named_before_the_first_step(digits, name, label):
    dataset, labels = digits
    method, optimizer, _ = prepare(dataset)
    before = method.model[1].weight.clone()
    held_out = Split(dataset.test.inputs, dataset.test.targets.clone())
    if name == "held_out":
        held_out.targets[3] = label
    else:
        wrong = getattr(labels, name).clone()
        wrong[3] = label
        labels = replace(labels, **{name: wrong})
    with pytest.raises(ValueError, match=f"^labels: the {name} label of sample 3 is {label};"):
        fit(method, optimizer, dataset.train, labels, held_out, epochs=1, batch_size=128, seed=0)
    assert torch.equal(method.model[1].weight, before)


def test_training_with_labels_of_one_class_only_is_defined(digits):
    dataset, labels = digits
    same = replace(labels, observed=torch.zeros_like(labels.observed))
    history, _ = train((dataset, same), epochs=2, alignment_batches=1)
    assert not history.diverged
    assert history.metrics["train_accuracy"][-1] == 1


def test_history_agrees_with_the_trained_model(digits):
    dataset, labels = digits
    history, method = train(digits, alignment_batches=1)
    outputs = predict(method.model, dataset.train.inputs)
    predictions = outputs.argmax(1)
    wrong = labels.observed != labels.clean
    last = {name: values[-1] for name, values in history.metrics.items()}
    assert last["train_loss"] == pytest.approx(loss_fn(outputs, labels.observed).item())
    assert last["train_accuracy"] == pytest.approx((predictions == labels.observed).float().mean().item())
    assert last["train_clean_accuracy"] == pytest.approx((predictions == labels.clean).float().mean().item())
    assert last["memorized"] == pytest.approx(
        (predictions[wrong] == labels.observed[wrong]).float().mean().item()
    )
    assert last["recovered"] == pytest.approx(
        (predictions[wrong] == labels.clean[wrong]).float().mean().item()
    )
    test_outputs = predict(method.model, dataset.test.inputs)
    assert last["test_loss"] == pytest.approx(loss_fn(test_outputs, dataset.test.targets).item())
    np.testing.assert_allclose(
        history.metrics["learning_rate"], [0.05 * (1 + math.cos(math.pi * e / 6)) / 2 for e in range(6)]
    )
    # warm-up of a quarter: one epoch of plain gradients, then 2 and the drawn share, over 12 batches an epoch
    steps = math.ceil(len(dataset.train) / 128)
    assert history.metrics["gradients"][0] == steps
    assert history.metrics["gradients"][1] == pytest.approx(steps + steps * 2.4, rel=0.01)
    assert (np.diff(history.metrics["seconds"]) > 0).all()


def test_training_learns_and_memorizes(digits):
    history, _ = train(digits, "plain", epochs=6)
    assert history.metrics["test_accuracy"][-1] > 0.6
    assert not history.diverged


def test_divergence_is_recorded_and_ends_the_training(digits):
    history, _ = train(digits, "ncsam", learning_rate=1e6)
    assert history.diverged
    assert history.epochs < 6
    assert math.isnan(history.metrics["train_loss"][-1])
    assert math.isnan(history.metrics["test_accuracy"][-1])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["train", "held_out"])
def test_samples_that_are_not_finite_are_refused_by_their_number_and_are_no_divergence(part, value):
    holed = torch.ones(5, 2)
    holed[3, 1] = value
    whole = Split(torch.ones(5, 2), torch.arange(5) % 2)
    parts = {"train": whole, "held_out": whole, part: Split(holed, whole.targets)}
    labels = corrupt_labels(whole.targets, rate=0.0, seed=0)
    method = Plain(nn.Linear(2, 2), loss_fn)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    data, held_out = parts["train"], parts["held_out"]
    with pytest.raises(ValueError, match=rf"^{part}: sample 3 holds {value} .*leave the samples out"):
        fit(method, optimizer, data, labels, held_out, epochs=1, batch_size=2, seed=0)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"epochs": 0}, "epochs"), ({"alignment_batches": -1}, "alignment_batches")],
)
def test_bad_arguments_are_named(digits, options, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        train(digits, **options)


def test_a_last_single_sample_goes_with_the_batch_before(digits):
    dataset, labels = digits
    indices = torch.arange(65)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    history = fit(
        Plain(model, loss_fn),
        torch.optim.SGD(model.parameters(), lr=0.1),
        dataset.train.take(indices),
        labels.take(indices),
        dataset.test,
        epochs=1,
        batch_size=32,
        seed=0,
    )
    assert history.metrics["gradients"][0] == 2


def test_a_second_training_counts_its_own_gradients(digits):
    dataset, labels = digits
    method = Plain(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), loss_fn)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    first, second = (
        fit(method, optimizer, dataset.train, labels, dataset.test, epochs=2, batch_size=128, seed=seed)
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(second.metrics["gradients"], first.metrics["gradients"])


def test_labels_of_another_size_are_refused(digits):
    dataset, labels = digits
    method, optimizer, _ = prepare(dataset)
    with pytest.raises(ValueError, match="^labels"):
        fit(method, optimizer, dataset.test, labels, dataset.test, epochs=1, batch_size=8, seed=0)


def test_shares_are_of_the_wrongly_labeled_and_undefined_without_them(digits):
    labels = corrupt_labels(torch.arange(10), rate=0.5, seed=0)
    wrong = labels.is_wrong
    half = labels.clean.clone()
    half[wrong.nonzero().flatten()[:2]] = labels.observed[wrong.nonzero().flatten()[:2]]
    assert memorized_share(half, labels) == pytest.approx(2 / 5)
    assert recovered_share(half, labels) == pytest.approx(3 / 5)
    spotless = corrupt_labels(torch.arange(10), rate=0.0, seed=0)
    assert math.isnan(memorized_share(half, spotless))


def test_prediction_leaves_the_modes_of_all_modules(digits):
    dataset, _ = digits
    model = build_model("cnn", dataset.input_shape, 10, seed=0, channels=(4,))
    model.train()
    model[1].eval()
    predict(model, dataset.test.inputs)
    assert model.training
    assert not model[1].training


def test_a_split_takes_samples_in_the_asked_order():
    split = Split(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 2]))
    assert split.take(torch.tensor([2, 0])).targets.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("kind", "norms", "within"),
    [("plain", [math.nan] * 4, 0), ("sam", [0.1] * 4, 1e-5), ("ncsam", [math.nan, 0.1, 0.1, 0.1], 0.05)],
)
def test_the_perturbations_norm_is_recorded_where_there_is_one(digits, kind, norms, within):
    # the first quarter is NCSAM's warm-up; after it the projection shortens most perturbations to rho
    history, _ = train(digits, kind, epochs=4)
    assert history.metrics["perturbation_norm"] == pytest.approx(norms, rel=within, nan_ok=True)


def test_without_projection_the_perturbation_may_be_longer_than_rho(digits):
    dataset, labels = digits
    method, optimizer, _ = prepare(dataset)
    method.project, method.warmup, method.progress = False, 0.0, 1.0
    norms = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            norms.append(math.sqrt(sum(t.square().sum().item() for t in method.ascent.perturbation)))
            return super().step(closure)

    optimizer = Recording(method.parameters(), lr=0.05)
    history = fit(method, optimizer, dataset.train, labels, dataset.test, epochs=2, batch_size=128, seed=0)
    steps = len(norms) // 2
    expected = [np.mean(norms[:steps]), np.mean(norms[steps:])]
    assert history.metrics["perturbation_norm"] == pytest.approx(expected, rel=1e-5)
    assert max(norms) > 0.1


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (2, torch.zeros(3), r"train: must be a Split, .* got Tensor; ncsam.Split\(inputs, targets\)"),
        (
            3,
            torch.zeros(3),
            r"labels: must be NoisyLabels, got Tensor; ncsam.human_labels\(clean, observed\)",
        ),
        (4, (torch.zeros(3), torch.zeros(3)), "held_out: must be a Split, .* got tuple"),
    ],
)
def test_data_of_another_type_are_named_with_what_makes_the_right_one(digits, place, value, words):
    dataset, noisy = digits
    method, optimizer, _ = prepare(dataset)
    arguments = [method, optimizer, dataset.train, noisy, dataset.test]
    arguments[place] = value
    with pytest.raises(TypeError, match=words):
        fit(*arguments, epochs=1, batch_size=128, seed=0)


def test_an_optimizer_of_another_model_is_refused(digits):
    dataset, noisy = digits
    method, _, _ = prepare(dataset)
    _, optimizer, _ = prepare(dataset)
    with pytest.raises(ValueError, match="optimizer: holds no parameter of this method"):
        fit(method, optimizer, dataset.train, noisy, dataset.test, epochs=1, batch_size=128, seed=0)


def test_what_a_method_does_before_an_epoch_is_timed(digits):
    class Prepared(Plain):
        def before_epoch(self, _train):
            time.sleep(0.2)

    dataset, labels = digits
    model = build_model("mlp", dataset.input_shape, dataset.num_classes, seed=0, hidden=[4])
    method = Prepared(model, nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = fit(method, optimizer, dataset.train, labels, dataset.test, epochs=1, batch_size=512, seed=0)
    assert history.metrics["seconds"][0] >= 0.2
