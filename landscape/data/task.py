"""How an Objective splits a batch into inputs and targets, and runs the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from landscape.data.batch_form import check_that_it_is_a_batch
from landscape.data.batches import Batch, in_precision
from landscape.data.counts import Count, Counting, Pair, counting_by, counting_of
from landscape.data.lists_of_samples import with_lists_of_samples_whole
from landscape.data.places import LossOfPlaces, by_samples, places_in
from landscape.data.rounded_data import warn_of_rounded_data

LossFunction = Callable[[Any, Any], Tensor]
"""(outputs, targets) -> the mean loss, a scalar. Called with (outputs, batch) if the caller gives `forward`."""

Forward = Callable[[nn.Module, Batch], Any]
"""(model, batch) -> outputs of any form."""

Regularizer = Callable[[Mapping[str, Tensor]], Tensor]
"""Parameters by name -> a scalar."""


def loss_itself(outputs: Tensor, _: Batch) -> Tensor:
    """The loss if the model's output is the loss."""
    return outputs


def in_one_line(
    model: nn.Module, parameters: int, samples: int, loss_fn: LossFunction, dtype: torch.dtype
) -> str:
    """An Objective in one line."""
    loss = getattr(loss_fn, "__name__", type(loss_fn).__name__)
    return (
        f"Objective({type(model).__name__}, {loss}, parameters={parameters:,}, samples={samples:,}, "
        f"dtype={str(dtype).removeprefix('torch.')})"
    )


def by_keywords(model: nn.Module, batch: Mapping[str, Any]) -> Any:
    """Runs `model(**batch)`."""
    return model(**batch)


def by_inputs(model: nn.Module, inputs: Batch) -> Any:
    """Runs `model(inputs)`."""
    return model(inputs)


def _as_dict(part: Any) -> Any:
    return dict(part) if _is_opaque(part) else part


def _is_opaque(part: Any) -> bool:
    """Whether a part is a mapping in which torch finds no tensors, as tokenizers make them."""
    return isinstance(part, Mapping) and bool(tree_leaves(part)) and tree_leaves(part)[0] is part


@dataclass
class Task:
    """How a batch is split and run.

    A batch (inputs, targets) is split: the model gets the inputs, and the loss gets the targets. If the caller gives
    `forward`, or if a batch is a dict, both get the whole batch.

    Attributes:
        run: (model, inputs) -> outputs.
        count: the caller's function; None: samples count, or the number by which the loss divides.
        takes_whole_batches: whether model and loss get the whole batch.
        was_looked_at: whether a batch was looked at for a warning.
        counting_of_torch: how a loss of torch's counts, which takes targets (samples * places, ...); None for another.
        has_places: whether the targets of the first batch are such; None before it.
    """

    run: Forward
    count: Count | None
    takes_whole_batches: bool
    was_looked_at: bool = False
    counting_of_torch: Counting | None = None
    has_places: bool | None = None

    def forward(self, model: nn.Module, inputs: Batch) -> Any:
        """The outputs of the model for inputs."""
        return self.run(model, inputs)

    def as_pair(self, batch: Batch, dtype: torch.dtype) -> Pair:
        """The inputs of the model, and the targets of the loss, with floating-point tensors in `dtype`.

        Raises:
            ValueError: the batch is neither a pair nor a dict, and no `forward` says how to run the model on it.
        """
        if isinstance(batch, Mapping) and self.run is by_inputs:
            self.run, self.takes_whole_batches = by_keywords, True
        if self.run in (by_inputs, by_keywords):
            batch = tree_map(_as_dict, batch, is_leaf=_is_opaque)
        if not self.takes_whole_batches:
            batch = self._by_samples(batch)
            check_that_it_is_a_batch(batch)
        if not self.was_looked_at:
            warn_of_rounded_data(batch, dtype)
            self.was_looked_at = True
        batch = in_precision(with_lists_of_samples_whole(batch), dtype)
        return (batch, batch) if self.takes_whole_batches else (batch[0], batch[1])

    def counting(self, loss_fn: LossFunction) -> Counting:
        """The weight of a batch's mean loss."""
        if self.count is None:
            counting = counting_of(loss_fn)
            self.counting_of_torch = counting if counting.is_known or counting.is_sum else None
            return counting
        return counting_by(self.count, self._splits_no_batch)

    def loss(self, loss_fn: LossFunction) -> LossFunction:
        """The loss of the targets as they are read."""
        return LossOfPlaces(loss_fn) if self.has_places else loss_fn

    def _by_samples(self, batch: Batch) -> Batch:
        counting = self.counting_of_torch
        places = places_in(batch) if counting else None
        if places and counting and counting.ignored is not None and batch[1].is_floating_point():
            # probabilities, which are counted by other axes
            places = None
        if self.has_places is None:
            self.has_places = places is not None and places > 1
        return by_samples(batch, places) if self.has_places and places else batch

    def _splits_no_batch(self) -> bool:
        return self.takes_whole_batches
