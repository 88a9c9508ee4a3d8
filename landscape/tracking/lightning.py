"""A tracker as a callback of Lightning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback

from landscape.tracking.tracker import Tracker


class LightningTracker(Callback):
    """Looks after the steps of the first optimizer, and at the end of each epoch of training.

    Args:
        tracker: its objectives are of the LightningModule itself, or of the module in it that `model` picks.
        model: LightningModule -> the module of the objectives.
    """

    def __init__(self, tracker: Tracker, model: Callable[[Any], Any] = lambda module: module) -> None:
        self.tracker = tracker
        self.model = model
        self._detach: Callable[[], None] = lambda: None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attaches the tracker to the optimizer."""
        self._detach = self.tracker.attach(self.model(pl_module), trainer.optimizers[0])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Ends the tracker's epoch."""
        self.tracker.end_epoch(self.model(pl_module))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Detaches the tracker."""
        self._detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Detaches the tracker."""
        self._detach()
