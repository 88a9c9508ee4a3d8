"""Planted wrong labels are found, and trainings that give no evidence are refused."""

import pytest
import torch

from ncsam import (
    detect,
    fit,
)
from tests.ncsam.fold_networks import build


def test_planted_wrong_labels_are_found(planted):
    data, labels = planted
    method, optimizer = build(data)(0)
    history = fit(
        method,
        optimizer,
        data.train,
        labels,
        data.test,
        epochs=10,
        batch_size=64,
        seed=0,
        record_samples=True,
    )
    found = detect(history, labels)
    quality = {each.criterion: each for each in found.quality(labels.is_wrong)}
    for criterion in ("small-loss", "area-under-margin", "early-learning"):
        assert quality[criterion].auroc.low > 0.9, criterion
        assert quality[criterion].precision_at_rate.value > 0.8
    # the truth is not read: labels without one give the same
    assert (
        found["small-loss"].scores.tolist() == detect(history, labels.observed)["small-loss"].scores.tolist()
    )
    wrong = labels.is_wrong.numpy()
    assert (found.proposed == labels.clean.numpy())[wrong].mean() > 0.8


def test_a_training_that_diverged_is_no_evidence(planted):
    data, labels = planted
    method, _ = build(data)(0)
    history = fit(
        method,
        torch.optim.SGD(method.parameters(), lr=1e30),
        data.train,
        labels,
        data.test,
        epochs=1,
        batch_size=512,
        seed=0,
        record_samples=True,
    )
    with pytest.raises(ValueError, match=r"^evidence: the training diverged"):
        detect(history, labels)


def test_a_history_without_samples_is_refused(planted):
    data, labels = planted
    method, optimizer = build(data)(0)
    history = fit(method, optimizer, data.train, labels, data.test, epochs=1, batch_size=512, seed=0)
    with pytest.raises(ValueError, match=r"^evidence: .*record_samples=True"):
        detect(history, labels)
