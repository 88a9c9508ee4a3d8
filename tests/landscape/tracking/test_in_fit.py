"""A tracker in `ncsam.fit`, which calls it after each epoch."""

import pytest
import torch
from torch import nn

from landscape import Objective, Tracker
from ncsam import SAM, build_model, corrupt_labels, fit, load_dataset


def test_a_tracker_follows_fit():
    data = load_dataset("digits", train_samples=120, test_samples=60)
    labels = corrupt_labels(data.train.targets, rate=0.2, seed=0)
    model = build_model("mlp", data.input_shape, data.num_classes, seed=0, hidden=[8])
    objectives = {
        name: Objective(model, nn.CrossEntropyLoss(), (data.train.inputs, targets))
        for name, targets in (("observed", labels.observed), ("clean", labels.clean))
    }
    tracker = Tracker(objectives, measures=["loss", "movement", "critical_sharpness"], at_most=None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    detach = tracker.attach(model, optimizer)
    told = []

    def on_epoch(epoch, metrics, model):
        told.append((epoch, metrics["train_loss"], model))
        tracker.on_epoch(epoch, metrics, model)

    history = fit(
        SAM(model, nn.CrossEntropyLoss(), rho=0.05),
        optimizer,
        data.train,
        labels,
        data.test,
        epochs=3,
        batch_size=30,
        seed=0,
        on_epoch=on_epoch,
    )
    detach()
    track = tracker.track()
    assert [epoch for epoch, *_ in told] == [1, 2, 3] == list(track.epoch)
    assert [loss for _, loss, _ in told] == list(history.metrics["train_loss"])
    assert all(seen is model for *_, seen in told)
    assert list(track.step) == [4, 8, 12]
    assert list(track.of("loss", "observed")) == pytest.approx(list(history.metrics["train_loss"]), rel=1e-5)
    assert (track.of("update_norm", "clean") > 0).all()
    assert (track.of("critical_sharpness", "observed") > 0).all()
