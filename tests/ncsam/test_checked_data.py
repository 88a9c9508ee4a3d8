"""What `fit` and `predict` are given: common forms are measured right, others are refused before work is lost."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader, TensorDataset

from ncsam import Augmentation, Plain, Split, build_schedule, corrupt_labels, fit, predict
from ncsam.memorization import share

TARGETS = torch.arange(12) % 3
INPUTS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
LABELS = corrupt_labels(TARGETS, rate=0.3, seed=0)
DATA = Split(INPUTS, TARGETS)


def of_flat(outputs, targets):
    return cross_entropy(outputs, targets.flatten())


def of_model(outputs_of):
    class Model(nn.Linear):
        def forward(self, inputs):
            return outputs_of(super().forward(inputs))

    return Model(4, 3)


def trained(train=DATA, labels=LABELS, held_out=DATA, *, model=None, loss_fn=cross_entropy, **options):
    torch.manual_seed(0)
    model = nn.Linear(4, 3) if model is None else model
    optimizer = options.pop("optimizer", lambda w: torch.optim.SGD(w, lr=0.1))(model.parameters())
    if "schedule" in options:
        options["scheduler"] = build_schedule(options.pop("schedule"), optimizer, epochs=3)
    how = {"epochs": 3, "batch_size": 5, "seed": 0} | options
    return fit(Plain(model, loss_fn), optimizer, train, labels, held_out, **how).metrics


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"labels": corrupt_labels(TARGETS[:, None], rate=0.3, seed=0), "loss_fn": of_flat},
            r"labels: the observed ones are .* \(12, 1\), .* give targets\.flatten\(\)",
        ),
        (
            {"held_out": Split(INPUTS, TARGETS[:, None]), "loss_fn": of_flat},
            r"held_out: .* \(12, 1\), .* give targets\.flatten\(\)",
        ),
        # as many samples as classes
        ({"held_out": Split(INPUTS[:3], one_hot(TARGETS[:3]).float())}, r"held_out: .*targets\.argmax\(1\)"),
        ({"held_out": Split(INPUTS, one_hot(TARGETS))}, r"held_out: .* targets\.argmax\(1\)"),
        ({"held_out": Split(INPUTS, TARGETS.float())}, r"held_out: .* give targets\.long\(\)"),
        (
            {"held_out": [(x, float(y)) for x, y in zip(INPUTS, TARGETS, strict=True)]},
            "held_out: its targets",
        ),
        (
            {"train": [(x, 0, place) for place, x in enumerate(INPUTS)]},
            r"data: its items are of 3 parts, .* pairs \(input, target\)",
        ),
        ({"held_out": Split(INPUTS[:0], TARGETS[:0])}, "held_out: holds no samples"),
        ({"train": Split(INPUTS[:0], TARGETS[:0]), "labels": LABELS.take([])}, "train: holds no samples"),
        ({"model": of_model(lambda o: (o, o))}, r"model: returns a tuple, .* model\(inputs\)\[0\]"),
        (
            {"model": of_model(lambda o: {"logits": o})},
            r"model: returns a dict, .* model\(inputs\)\['logits'\]",
        ),
        ({"model": of_model(lambda o: o[:, 0])}, r"model: its outputs for 1 samples have the shape \(1,\)"),
        ({"augmentation": Augmentation(crop=1)}, r"augmentation: takes images .* got \(5, 4\)"),
        (
            {"model": nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), "batch_size": 1},
            "batch_size: BatchNorm has no statistics of a single sample",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_step_with_its_remedy(options, words):
    steps = []

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            steps.append(super().step(closure))

    with pytest.raises(ValueError, match=f"^{words}"):
        trained(optimizer=lambda weights: Counting(weights, lr=0.1), **options)
    assert not steps


def test_a_loss_that_fails_on_held_out_samples_alone_is_refused_before_a_step():
    def of_few_classes(outputs, targets):
        if targets.max() == 2:
            raise RuntimeError("too many")
        return cross_entropy(outputs, targets)

    labels = corrupt_labels(TARGETS % 2, rate=0.3, seed=0)
    with pytest.raises(ValueError, match="^held_out: loss_fn: fails on .* too many"):
        trained(labels=labels, loss_fn=of_few_classes)


def test_a_loss_that_fails_on_all_samples_is_not_laid_on_the_held_out_ones():
    with pytest.raises(ValueError, match="^loss_fn: fails"):
        trained(loss_fn=lambda outputs, targets: cross_entropy(outputs.double(), targets, torch.ones(3)))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_held_out_classes_may_be_whole_numbers_of_any_type(dtype):
    found, expected = trained(held_out=Split(INPUTS, TARGETS.to(dtype))), trained()
    for name in ("test_loss", "test_accuracy"):
        assert found[name].tolist() == expected[name].tolist()


def test_hits_of_another_shape_than_what_they_are_among_are_no_share():
    with pytest.raises(AssertionError):
        share(torch.ones(3, 3, dtype=torch.bool), torch.ones(3, 1, dtype=torch.bool))


def test_a_learning_rate_in_a_tensor_is_stored_as_it_was_in_its_epoch():
    found = [
        trained(optimizer=lambda w, lr=lr: torch.optim.AdamW(w, lr=lr), schedule="cosine")["learning_rate"]
        for lr in (0.1, torch.tensor(0.1))
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize(
    "data",
    [
        INPUTS.numpy(),
        DATA,
        TensorDataset(INPUTS),
        TensorDataset(INPUTS, TARGETS),
        DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=5),
        list(zip(INPUTS, TARGETS, strict=True)),
    ],
)
def test_outputs_are_predicted_for_data_in_any_form(data):
    model = nn.Linear(4, 3)
    torch.testing.assert_close(predict(model, data), model(INPUTS).detach())


def test_a_training_takes_a_dataset_of_inputs_alone():
    assert trained(TensorDataset(INPUTS))["train_loss"].tolist() == trained()["train_loss"].tolist()


@pytest.mark.parametrize(
    ("model", "data", "error", "words"),
    [
        (nn.Linear(4, 3), (INPUTS, TARGETS), TypeError, "inputs: must be a Split"),
        (nn.Linear(4, 3), INPUTS.numpy().astype(np.float64), ValueError, "inputs: are in torch.float64"),
        (of_model(lambda o: (o, o)), INPUTS, ValueError, "model: returns a tuple"),
        (
            nn.Linear(4, 3),
            TensorDataset(INPUTS, TARGETS, TARGETS),
            ValueError,
            "data: its items are of 3 parts",
        ),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_its_remedy(model, data, error, words):
    with pytest.raises(error, match=f"^{words}"):
        predict(model, data)
