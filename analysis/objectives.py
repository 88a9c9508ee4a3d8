"""The Objective of a study: its numbers depend on seeds alone, to the last bit, not on how busy the machine is."""

from __future__ import annotations

from typing import Any

from torch import nn

from landscape import Objective

MEASURED_LOSS = (
    "mean cross-entropy in evaluation mode, whatever loss, weight decay or smoothing the training had"
)
"""The loss whose landscape a study measures. It is one for all methods, so that their landscapes can be compared."""

LABEL_WORDS = {"observed": "observed labels", "clean": "true labels"}
"""Name of the mean cross-entropy of training samples with some labels -> these labels in words."""


def objective_of(model: nn.Module, data: Any, loss_fn: Any = None) -> Objective:
    """The mean loss of a model over (inputs, targets); cross-entropy if no loss is given.

    Whether products are traced is counted, not timed, because the two ways differ in their last bits.
    """
    return Objective(model, loss_fn or nn.CrossEntropyLoss(), data, chunk_size=1000, linearize="counted")
