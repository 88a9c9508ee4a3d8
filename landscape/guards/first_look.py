"""Checks on a few samples, made once before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from landscape.data.batches import Batch, copied_to, rows_of, samples_in, tensors_in
from landscape.data.class_labels import LabelBounds
from landscape.data.counts import Counting, Pair
from landscape.data.places import remedy_of_places
from landscape.data.reading import Chunks
from landscape.data.task import Forward, LossFunction
from landscape.guards.agreement import agree_but_for_rounding
from landscape.guards.draws import share_by_draws
from landscape.guards.follows_weights import check_that_copy_follows_its_weights
from landscape.guards.generators import borrowed_for_checks
from landscape.guards.kept_state import KeptState, check_that_passes_keep_nothing
from landscape.guards.likely_mistakes import warn_of_outputs
from landscape.guards.loss_of_samples import (
    RANDOM_LOSS,
    check_that_classes_count_alike,
    check_that_loss_is_a_mean,
)
from landscape.guards.loss_value import check_that_it_repeats, checked_loss, loss_in_float64
from landscape.guards.mean_over_parts import check_that_counts_add_up, check_that_losses_add_up
from landscape.guards.mixed_samples import Precisely
from landscape.guards.model_and_loss import (
    LOSS_WITH_WEIGHTS,
    OUTPUTS_OF_THE_CALLER,
    REGULARIZER_OF_OTHERS,
    check_that_no_parameter_enters,
    writes_to_its_weights,
)
from landscape.guards.outputs_of_samples import CHANGING, MIXING, RANDOM, checked_outputs
from landscape.guards.parts import Found
from landscape.guards.repeated_runs import (
    allowed_between_runs,
    changes,
    is_dense,
    share_apart,
    share_between_runs,
)
from landscape.guards.telling_samples import FEWEST, MOST_SAMPLES, telling_rows, telling_samples
from landscape.guards.unread_outputs import loss_reads_what_differs
from landscape.model.padded_places import padded_places_as_in
from landscape.model.penalty import Penalty
from landscape.model.precision import full_float32
from landscape.model.weights import ParameterLayout, outputs_at
from landscape.model.without_gradients import without_gradients

PADDED_PLACES = (
    "model: the loss depends on outputs of nn.TransformerEncoder at padded places, which are 0 in evaluation without a "
    "gradient, and other numbers with one, as in training, so that losses and derivatives would be of two functions; "
    "give nn.TransformerEncoder enable_nested_tensor=False, or let the loss leave padded places out"
)


@dataclass(frozen=True)
class FirstLook:
    """Checks on a few samples.

    Attributes:
        model: the measured copy.
        layout: names and shapes of the variables.
        theta: the variables (n,).
        loss_fn: (outputs, targets) -> mean loss.
        counting: the weights of batches.
        chunks: the data.
        labels: the bounds of the labels of all data.
        precisely: the same model and loss in float64.
        state: what the model held before its first pass.
        run: (model, inputs) -> outputs.
        differentiates: whether a forward pass or the loss takes derivatives by itself.
    """

    model: nn.Module
    layout: ParameterLayout
    theta: Tensor
    loss_fn: LossFunction
    counting: Counting
    chunks: Chunks
    labels: LabelBounds
    precisely: Precisely
    state: KeptState
    run: Forward
    differentiates: bool = False

    def forward(self, theta: Tensor, inputs: Batch) -> Any:
        """The outputs with the weights `theta`."""
        return outputs_at(self.model, self.layout, self.run, theta, inputs)

    @full_float32()
    @torch.no_grad()
    def check_samples(self, are_tensors: bool, chunk_size: int) -> bool:
        """Checks the outputs and losses of a hundred samples; of a few if the loss is one of torch's, which is a mean.

        Args:
            are_tensors: whether inputs and targets are tensors.
            chunk_size: largest number of samples that are run at a time.

        Returns:
            Whether the outputs are a tensor with a row for each sample, where the targets are a tensor.

        Raises:
            ValueError: the loss of the samples together is not the counted mean of their losses, or the outputs are
                random or depend on the other samples.
        """
        with borrowed_for_checks(self.theta.device), without_gradients(self.differentiates):
            self._check_draws()
            has_rows = self._has_rows()
            if are_tensors and has_rows:
                self._check_rows(chunk_size)
            else:
                self._check_outputs(has_rows)
                samples = telling_samples(self.chunks.all_or_first(), chunk_size)
                try:
                    check_that_losses_add_up(
                        self._found, self.counting, samples, self.theta.dtype, self.precisely.found
                    )
                except ValueError as error:
                    raise ValueError(f"{error}{remedy_of_places(self.loss_fn)}") from error
            if has_rows:
                self._check_first_chunk(chunk_size)
        return has_rows

    def _has_rows(self) -> bool:
        """Whether outputs have a row for each sample; also True where a batch does not show it.

        Other outputs are measured as those of any batch: the loss of the samples must be the mean of their losses.
        """
        inputs, targets = self.few()
        samples = samples_in(inputs)
        if samples is None or not isinstance(targets, Tensor):
            return True
        # the first size may be the number of samples by chance, such as that of the members of an ensemble
        for count in sorted({samples, max(1, samples // 2)}, reverse=True):
            try:
                outputs = self.at_its_weights(copied_to(rows_of(inputs, slice(0, count)), self.theta.device))
            except Exception:
                # some models take batches of one size only
                return True
            if not isinstance(outputs, Tensor) or not outputs.ndim or len(outputs) != count:
                return False
        return True

    def _check_first_chunk(self, chunk_size: int) -> None:
        """Samples may share what only a large batch exhausts, such as the capacity of experts."""
        inputs = self.chunks.first(chunk_size)[0]
        samples = samples_in(inputs) or 0
        if samples <= 2 * FEWEST:
            return
        later = rows_of(inputs, slice(samples // 2, samples))
        whole, half = (self.at_its_weights(copied_to(part, self.theta.device)) for part in (inputs, later))
        if not (is_dense(whole) and is_dense(half) and whole.ndim and len(whole) == samples):
            return
        if not agree_but_for_rounding(half.detach(), whole.detach()[samples // 2 :]):
            raise ValueError(MIXING)

    def _check_draws(self) -> None:
        pair, device = self.few(), self.theta.device
        owners = [*(module for module, _ in self.state.attributes), self.run]

        # a pass may change its inputs
        def outputs() -> Any:
            return self.at_its_weights(copied_to(pair[0], device))

        if _changes_by_draws(outputs, lambda: self.precisely.outputs(pair), device, owners):
            raise ValueError(RANDOM)

    def _check_draws_of_loss(self, outputs: Any, targets: Batch) -> None:
        owners = self.loss_fn.modules() if isinstance(self.loss_fn, nn.Module) else [self.loss_fn]
        loss = partial(self._loss, outputs, targets)
        precise = partial(loss_in_float64, self._loss, outputs, targets)
        if _changes_by_draws(loss, precise, self.theta.device, list(owners)):
            raise ValueError(RANDOM_LOSS)

    def _small_change(self, pair: Pair) -> float | None:
        """The share by which runs in float64 differ; 0 where another check names what passes keep."""
        return 0.0 if self.state.changed() else share_between_runs(lambda: self.precisely.outputs(pair))

    def _check_outputs(self, has_rows: bool) -> None:
        inputs, targets = self.few()
        # a pass may change its inputs, as a model does that fills a cache
        outputs, again = (self.at_its_weights(copied_to(inputs, self.theta.device)) for _ in range(2))
        pairs = zip(tree_leaves(outputs), tree_leaves(again), strict=False)
        # a number alone is the loss, of which its own check says more
        dense = [pair for pair in pairs if all(map(is_dense, pair)) and pair[0].ndim]
        in_float64 = partial(self._small_change, (inputs, targets))
        if any(changes(share_apart(after, before), before, in_float64) for before, after in dense):
            raise ValueError(CHANGING)
        if isinstance(outputs, Tensor) and has_rows:
            self.labels.check(outputs)
        # a loss that fails is refused with what it was given
        self._check_draws_of_loss(outputs, targets)
        warn_of_outputs(self.loss_fn, outputs, targets, self.at_its_weights)

    def _check_rows(self, chunk_size: int) -> None:
        device, dtype = self.theta.device, self.theta.dtype
        inputs, targets = self.chunks.all_or_first()
        rows = telling_rows(targets)
        if self.counting.is_known:
            # torch's own losses are known to be means; fewer samples tell whether the model mixes them
            rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), 2 * FEWEST), device="cpu").long()]

        def outputs_of(rows: Tensor) -> Any:
            # some models cannot take a single sample
            pieces = rows.tensor_split(math.ceil(len(rows) / max(chunk_size, FEWEST)))
            parts = [self.at_its_weights(copied_to(rows_of(inputs, piece), device)) for piece in pieces]
            can_be_joined = all(isinstance(part, Tensor) and part.ndim for part in parts)
            return torch.cat(parts) if len(parts) > 1 and can_be_joined else parts[0]

        pair = rows_of((inputs, targets), rows)
        check_that_counts_add_up(self.counting, pair, float(self.counting.of_samples(pair).sum()))
        mixes, in_float64 = partial(self.precisely.mixes, pair), partial(self._small_change, pair)
        outputs = checked_outputs(outputs_of, rows, device, mixes, in_float64)
        self.labels.check(outputs)
        labels = targets[rows].to(device)
        if self.counting.is_known:
            # a few outputs tell whether torch's loss takes such outputs and targets
            outputs, labels = outputs[:FEWEST], labels[:FEWEST]
        self._check_draws_of_loss(outputs, labels)
        check_that_it_repeats(self._loss, outputs, labels)
        warn_of_outputs(self.loss_fn, outputs, labels)
        check = partial(check_that_loss_is_a_mean, self._loss, self.counting, dtype=dtype)
        check(outputs, labels)
        if not self.counting.is_known:
            check_that_classes_count_alike(check, outputs, targets)

    @full_float32()
    def writes_weights(self, original: nn.Module, penalty: Penalty | None) -> bool:
        """Whether a forward pass writes to its weights. Other dependencies of the outputs are checked.

        Args:
            original: the model that was copied.
            penalty: the regularizer.

        Raises:
            ValueError: the outputs depend on earlier passes, or the outputs, the loss or the regularizer depend on
                weights outside of the copy.
        """
        if self._was_made_in_inference_mode():
            return False

        def outputs(theta: Tensor) -> Any:
            with without_gradients(self.differentiates):
                return self.forward(theta, self.few()[0])

        with borrowed_for_checks(self.theta.device):
            check_that_passes_keep_nothing(lambda theta: outputs(theta.clone()), self.theta, self.state)
        with without_gradients(self.differentiates):
            self._check_padded_places(original)
        writes = writes_to_its_weights(outputs, self.theta)
        self._check_dependence(original, penalty, outputs(self.theta.clone()))

        def of_model(model: nn.Module) -> Any:
            with without_gradients(self.differentiates):
                return self.run(model, self.few()[0])

        with borrowed_for_checks(self.theta.device):
            check_that_copy_follows_its_weights(
                original, self.model, self.layout, self.theta, outputs, of_model
            )
        return writes

    def _check_dependence(self, original: nn.Module, penalty: Penalty | None, plain: Any) -> None:
        targets = self.few()[1]
        with torch.inference_mode(False), torch.enable_grad():
            outputs = self._recorded(plain)
            check_that_no_parameter_enters(outputs, original, OUTPUTS_OF_THE_CALLER, copied=self.model)
            loss = self._loss(tree_map(self._without_graph, outputs), targets)
            check_that_no_parameter_enters(loss, original, LOSS_WITH_WEIGHTS)
            if penalty:
                penalty.check(self.theta)
                check_that_no_parameter_enters(penalty(self.theta), original, REGULARIZER_OF_OTHERS)

    def _without_graph(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        # a loss may differentiate in the outputs
        return leaf.detach().requires_grad_(self.differentiates and leaf.requires_grad)

    def _recorded(self, plain: Any) -> Any:
        """The outputs of a pass that torch records for derivatives. They must be those of a pass without, `plain`."""
        try:
            with self._own_weights_noticed():
                recorded = self.forward(self.theta.clone().requires_grad_(), self.few()[0])
        except RuntimeError:
            # a forward that writes to its weights cannot be recorded
            return self.at_its_weights(self.few()[0])
        detached = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, recorded)
        if loss_reads_what_differs(detached, plain, partial(self._loss_without_gradients, self.few()[1])):
            raise ValueError(
                "model: its outputs differ between a pass that torch records for derivatives and one that it does not, "
                "so that losses and their derivatives would be of two functions; let forward not depend on "
                "torch.is_grad_enabled() or requires_grad"
            )
        return recorded

    @torch.no_grad()
    def _loss_without_gradients(self, targets: Batch, outputs: Any) -> Tensor:
        return self._loss(outputs, targets)

    def _check_padded_places(self, original: nn.Module) -> None:
        """Checks that the loss does not read padded places that the original leaves out and the copy computes."""
        with padded_places_as_in(original, self.model) as leaves_out:
            if not leaves_out:
                return
            inputs, targets = telling_samples(self.chunks.all_or_first(), MOST_SAMPLES)
            # a pass may change its inputs
            left_out = self.at_its_weights(copied_to(inputs, self.theta.device))
        computed = self.at_its_weights(copied_to(inputs, self.theta.device))
        loss = partial(self._loss_without_gradients, copied_to(targets, self.theta.device))
        if loss_reads_what_differs(computed, left_out, loss):
            raise ValueError(PADDED_PLACES)

    @contextmanager
    def _own_weights_noticed(self) -> Iterator[None]:
        """The copy's own parameters require a gradient, so that torch records where forward reaches them."""
        own = [self.model.get_parameter(name).requires_grad_() for name in self.layout.names]
        try:
            yield
        finally:
            for parameter in own:
                parameter.requires_grad_(False)

    def _was_made_in_inference_mode(self) -> bool:
        return any(tensor.is_inference() for tensor in (self.theta, *tensors_in(self.chunks.first(1))))

    def _found(self, pair: Pair) -> Found:
        inputs, targets = copied_to(pair[0], self.theta.device), copied_to(pair[1], self.theta.device)
        outputs = self.at_its_weights(inputs)
        return Found.of(self._loss(outputs, targets), outputs)

    @property
    def _loss(self) -> LossFunction:
        return partial(checked_loss, self.loss_fn)

    def at_its_weights(self, inputs: Batch) -> Any:
        """The outputs with the model's own weights."""
        return self.forward(self.theta.clone(), inputs)

    def few(self) -> Pair:
        """Inputs and targets of at most four samples."""
        inputs, targets = self.chunks.first(4)
        return copied_to(inputs, self.theta.device), copied_to(targets, self.theta.device)


def _changes_by_draws(
    run: Callable[[], Any], in_float64: Callable[[], Any], device: torch.device, owners: Sequence[object]
) -> bool:
    """Whether results depend on random numbers, by more than rounding.

    Args:
        run: the computation.
        in_float64: the same in float64; its result is None where it does not run in float64.
        device, owners: as for `share_by_draws`.
    """
    results: list[Any] = []

    def noted() -> Any:
        results[:] = [run()]
        return results[0]

    def precise() -> float | None:
        return None if in_float64() is None else share_by_draws(in_float64, device, owners)

    share = share_by_draws(noted, device, owners)
    dense = [leaf for leaf in tree_leaves(results) if is_dense(leaf)]
    return bool(dense) and changes(share, max(dense, key=allowed_between_runs), precise)
