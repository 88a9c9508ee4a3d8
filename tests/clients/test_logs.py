"""A tracker's metrics in TensorBoard, W&B (offline) and MLflow, read back with their own readers."""

import pytest
import torch
from torch import nn

from landscape import Objective, Tracker
from landscape.tracking import logs


def tracked(log):
    model = nn.Linear(3, 2)
    data = torch.randn(8, 3), torch.arange(8) % 2
    tracker = Tracker(
        Objective(model, nn.CrossEntropyLoss(), data), every=1, measures=["loss"], at_most=None, log=log
    )
    for _ in range(3):
        with torch.no_grad():
            model.weight.add_(0.1)
        tracker.step(model)
    return tracker.track().of("loss")


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path)
    expected = tracked(logs.to_tensorboard(writer))
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = events.Scalars("landscape/loss/training")
    assert [event.step for event in found] == [1, 2, 3]
    assert [event.value for event in found] == pytest.approx(list(expected), rel=1e-6)


def test_mlflow(tmp_path, monkeypatch):
    # a folder needs no database, and MLflow wants to be asked for it
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tmp_path.as_uri())
    run = client.create_run(client.create_experiment("landscape"))
    expected = tracked(logs.to_mlflow(client, run.info.run_id))
    found = client.get_metric_history(run.info.run_id, "landscape/loss/training")
    assert [metric.step for metric in found] == [1, 2, 3]
    assert [metric.value for metric in found] == pytest.approx(list(expected))


def test_wandb_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    import wandb

    with wandb.init(mode="offline", dir=tmp_path, project="landscape") as run:
        expected = tracked(logs.to_wandb(run))
        assert run.summary["landscape/loss/training"] == pytest.approx(expected[-1])
        assert run.summary["landscape/step"] == 3
    assert list(tmp_path.rglob("*.wandb"))
