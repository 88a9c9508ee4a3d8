"""Targets of places, such as tokens or pixels, along one axis with the samples, as outputs that a model flattens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from landscape.data.batches import Batch, samples_in

REMEDY = (
    "where the outputs have a row for each target, give forward=lambda m, b: m(b[0]), a loss of (outputs, b[1]) that "
    "is a mean, and count=lambda b: b[1].numel()"
)


def remedy_of_places(loss_fn: object) -> str:
    """What else to do about a loss that is no mean over the samples, if its targets are those of places."""
    if not isinstance(loss_fn, LossOfPlaces):
        return ""
    return (
        f"; the targets of a sample are taken to follow each other, as its rows of outputs do: else {REMEDY}"
    )


def places_in(batch: Batch) -> int | None:
    """The number of targets a sample, where those of all samples lie along one axis; None for another batch."""
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[1], Tensor):
        return None
    samples, targets = map(samples_in, batch)
    return targets // samples if samples and targets and not targets % samples else None


def by_samples(batch: Batch, places: int) -> Batch:
    """Inputs, and targets (samples * places, ...) as (samples, places, ...), so that both are cut by samples."""
    inputs, targets = batch
    return inputs, targets.unflatten(0, (-1, places))


class LossOfPlaces(nn.Module):
    """One of torch's losses for outputs with a row for each place, of targets (samples, places, ...).

    A model may order its rows otherwise than by samples. Then the loss of samples is not the mean over their parts, and
    is refused as any other one.
    """

    def __init__(self, loss: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Any, targets: Tensor) -> Tensor:
        """The loss.

        Raises:
            ValueError: the outputs have another number of rows than the targets.
        """
        flat = targets.flatten(0, 1)
        if not isinstance(outputs, Tensor) or outputs.shape[:1] != flat.shape[:1]:
            raise ValueError(
                f"the inputs are {len(targets)} and the targets {len(flat)}, not as many, and the outputs have no row "
                "for each target; let model and data fit"
            )
        return self.loss(outputs, flat)
