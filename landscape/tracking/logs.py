"""Where a tracker's metrics can go: each makes a function for `Tracker(log=...)`."""

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
    """Metrics of a run of W&B, what `wandb.init` returns, drawn over the optimizer's steps.

    They do not move W&B's own step, which is that of the caller's metrics.
    """
    run.define_metric(f"{prefix}step")
    run.define_metric(f"{prefix}*", step_metric=f"{prefix}step")

    def log(metrics: dict[str, float]) -> None:
        run.log({prefix + name: value for name, value in metrics.items()})

    return log


def to_mlflow(client: Any, run_id: str, *, prefix: str = "landscape/") -> Log:
    """Metrics of a run of MLflow, over the optimizer's steps. NaN, which some of its stores refuse, is left out.

    Args:
        client: an `mlflow.MlflowClient`.
        run_id: of the run, such as `mlflow.active_run().info.run_id`.
        prefix: of the names.
    """

    def log(metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if name not in COUNTS and not math.isnan(value):
                client.log_metric(run_id, prefix + name, value, step=int(metrics["step"]))

    return log
