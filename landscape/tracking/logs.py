"""Loggers for a tracker's metrics. Each function here makes one for `Tracker(log=...)`."""

from __future__ import annotations

import math
from typing import Any

from landscape.tracking.tracker import Log

COUNTS = ("step", "epoch")


def to_tensorboard(writer: Any, *, prefix: str = "landscape/") -> Log:
    """Scalars of a `torch.utils.tensorboard.SummaryWriter`, over the optimizer's steps."""

    def log(metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if name not in COUNTS:
                writer.add_scalar(prefix + name, value, int(metrics["step"]))
        writer.flush()

    return log


def to_wandb(run: Any, *, prefix: str = "landscape/") -> Log:
    """Metrics of a run of W&B, which `wandb.init` returns, over the optimizer's steps.

    W&B's own step stays that of the caller's metrics.
    """
    run.define_metric(f"{prefix}step")
    run.define_metric(f"{prefix}*", step_metric=f"{prefix}step")

    def log(metrics: dict[str, float]) -> None:
        run.log({prefix + name: value for name, value in metrics.items()})

    return log


def to_mlflow(client: Any, run_id: str, *, prefix: str = "landscape/") -> Log:
    """Metrics of a run of MLflow, over the optimizer's steps. NaN is left out, because some stores of MLflow refuse it.

    Args:
        client: an `mlflow.MlflowClient`.
        run_id: id of the run, such as `mlflow.active_run().info.run_id`.
        prefix: begins each metric's name.
    """

    def log(metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if name not in COUNTS and not math.isnan(value):
                client.log_metric(run_id, prefix + name, value, step=int(metrics["step"]))

    return log
