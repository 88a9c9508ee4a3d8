"""A tracker as a callback of Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from landscape.tracking.tracker import Tracker


class TransformersTracker(TrainerCallback):
    """Looks after the Trainer's steps, and at the end of each epoch.

    Args:
        tracker: its objectives are of the Trainer's model.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._detach: Callable[[], None] = lambda: None

    def on_train_begin(self, args: Any, state: Any, control: Any, **about: Any) -> None:  # noqa: ARG002
        """Attaches the tracker to the optimizer."""
        # accelerate wraps the optimizer that takes the steps
        optimizer = getattr(about["optimizer"], "optimizer", about["optimizer"])
        self._detach = self.tracker.attach(about["model"], optimizer)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **about: Any) -> None:  # noqa: ARG002
        """Ends the tracker's epoch."""
        self.tracker.end_epoch(about["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **about: Any) -> None:  # noqa: ARG002
        """Detaches the tracker."""
        self._detach()
