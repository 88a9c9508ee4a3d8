"""How the passes of a step run: precision, micro-batches and ranks.

A method says which gradients it needs, and this module computes them. So autocast, loss scaling, micro-batches and
DistributedDataParallel are written once, for all methods.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ncsam.methods.agreement import Agreement
from ncsam.methods.batches import (
    Batch,
    Count,
    Forward,
    as_float32,
    detached,
    joined,
    part_of_mean,
    samples_in,
    sum_of_parts,
)
from ncsam.methods.call_checks import check_that_it_has_rows, warn_of_probabilities
from ncsam.methods.called_objects import objects_called
from ncsam.methods.gradients import Reached, gradient_and_reached, with_a_gradient
from ncsam.methods.graph_nodes import check_that_no_checkpoint_is_reentrant
from ncsam.methods.guessed_weights import GuessedWeights
from ncsam.methods.loss_checks import check_that_pieces_add_up, checked_loss
from ncsam.methods.outside_parameters import check_that_all_are_the_models
from ncsam.methods.perturbation import trainable_parameters
from ncsam.methods.rank_means import check_that_none_joins, factor_of_rank, has_ranks, mean_over_ranks
from ncsam.methods.run_on_batch import run_as_given
from ncsam.methods.sharded import is_sharded
from ncsam.methods.state import State
from ncsam.methods.step_state import StepState
from ncsam.methods.tensor_lists import scaled
from ncsam.methods.training_loss import LossFunction, TrainingLoss, remembers_samples
from ncsam.methods.weighing import Piece, Weighing, part_of_rank, zero_of


@dataclass
class Passes:
    """Forward and backward passes of one model and loss.

    Attributes:
        model: in training mode; may be wrapped in DistributedDataParallel or compiled.
        loss_fn: (outputs, targets) -> mean loss, or a loss that remembers samples.
        autocast_dtype: dtype of `torch.autocast` in forward passes; None: no autocast.
        scaler: the scaler that float16 needs. `.grad` is then scaled as after `scaler.scale(loss).backward()`, so that
            `scaler.step(optimizer)` can follow; it skips the step if any pass overflowed.
        micro_batch_size: number of samples in a piece of the batch. The weighted mean of the pieces' gradients is the
            gradient of the whole batch, and needs less memory. BatchNorm normalizes each piece by itself, as in any
            accumulation of gradients. None: the whole batch.
        average_over_ranks: whether, under DistributedDataParallel, every gradient is that of the samples of all ranks
            together: ranks are weighted as micro-batches are, and the losses of a sum are added. NCSAM still draws on
            each rank from its own part. If False, each rank perturbs by the gradient of its own part, and a step costs
            one all-reduce (m-sharpness, Foret et al. 2021, section 4). BatchNorm normalizes each rank's part by itself.
        sample_gradients: number of per-sample gradients computed so far.
        run: (model, inputs) -> outputs; None: `model(inputs)`, or `model(**batch)` for whole batches.
        count: batch -> the weight of a part's mean loss when micro-batches or ranks are averaged; None: the number of
            samples, or the sum by which a loss of torch divides.
        takes_whole_batches: whether model and loss both get the whole batch, instead of its inputs and its targets.
    """

    model: nn.Module
    loss_fn: TrainingLoss
    autocast_dtype: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None
    micro_batch_size: int | None = None
    average_over_ranks: bool = False
    sample_gradients: int = 0
    run: Forward | None = None
    count: Count | None = None
    takes_whole_batches: bool = False
    _reached: Reached = field(default_factory=Reached)
    _guessed: GuessedWeights = field(default_factory=GuessedWeights)
    _looked_at_outputs: bool = False
    _state: StepState = field(default_factory=StepState)

    @property
    def module(self) -> nn.Module:
        """The model without DistributedDataParallel. A pass through this module starts no all-reduce."""
        if isinstance(self.model, DistributedDataParallel):
            bare: nn.Module = self.model.module
            return bare
        return self.model

    @property
    def ranks(self) -> Agreement:
        """The ranks that train the model together."""
        return Agreement.of(self.model)

    def backward(
        self, inputs: Batch, targets: Batch, indices: Tensor | None, *, moves_statistics: bool
    ) -> Tensor:
        """Adds the gradient of the batch's mean loss to `.grad`, as `loss.backward()` does.

        Args:
            inputs: (batch, ...).
            targets: (batch,).
            indices: int64 (batch,), positions in the training set.
            moves_statistics: whether state moves (BatchNorm's statistics, the loss's memory), as in the pass at w.

        Returns:
            The mean loss, detached.
        """
        losses, compared = [], []
        pieces = self._weighing().pieces(inputs, targets, indices, self.micro_batch_size)
        factor = self.rank_factor(inputs, targets)
        with nullcontext() if moves_statistics else self.unmoved():
            for number, piece in enumerate(pieces):
                is_last = number == len(pieces) - 1
                model = self.model if is_last else self.module
                outputs = self.outputs(model, piece.inputs, piece.indices, first=moves_statistics)
                part = self._part_of_loss(outputs, piece)
                losses.append(part.detach())
                if self._must_add_up(pieces):
                    compared.append(detached(outputs))
                if is_last:
                    # may raise, and so comes before the ranks wait for each other
                    mean = self._sum(losses, compared, pieces)
                if piece.share or is_last or self.ranks.waits_in_passes:
                    self.backward_of(part_of_rank(part, outputs, factor), over_ranks=is_last)
        return mean

    def gradient(
        self,
        inputs: Batch,
        targets: Batch,
        indices: Tensor | None,
        *,
        moves_statistics: bool = False,
        loss_fn: LossFunction | None = None,
        is_combined: bool = False,
    ) -> tuple[Tensor, Any, list[Tensor]]:
        """The gradient of the batch's mean loss; `.grad` is not touched.

        Args:
            inputs, targets, indices, moves_statistics: as for `backward`.
            loss_fn: a loss in the place of the method's.
            is_combined: whether the gradient is for `accumulate`, which fills the model's `.grad` alone.

        Returns:
            The mean loss and the outputs (batch, ...), detached, and the gradient.
        """
        losses, outputs, total = [], [], None
        self._reached = Reached()
        pieces = self._weighing(loss_fn).pieces(inputs, targets, indices, self.micro_batch_size)
        factor = self.rank_factor(inputs, targets, loss_fn)
        with self._state.moving(self.module, self._called()) if moves_statistics else self.unmoved():
            for piece in pieces:
                output = self.outputs(self.module, piece.inputs, piece.indices, first=moves_statistics)
                if (len(pieces) > 1 or self.share_a_batch) and self.run is None and self.count is None:
                    check_that_it_has_rows(output)
                part = self._part_of_loss(output, piece, loss_fn)
                losses.append(part.detach())
                outputs.append(detached(output))
                if is_combined:
                    check_that_all_are_the_models(part, self.module)
                if self._state.tensors.looks and not is_sharded(self.module):
                    check_that_no_checkpoint_is_reentrant(part, self.module)
                if piece.share or self.ranks.waits_in_passes:
                    total = self._with_gradient_of(part_of_rank(part, output, factor), total)
        assert total is not None
        if self.scaler is not None:
            total = scaled(total, 1 / self._scale(torch.ones_like(losses[0])))
        if self.averages:
            self.average(total)
        return self._sum(losses, outputs, pieces, loss_fn), joined(outputs), total

    def gradient_without_samples(self, loss_fn: LossFunction | None = None) -> list[Tensor]:
        """The gradient that the other ranks compute by `gradient`, for a rank without samples. Needs `averages`."""
        nothing = [torch.zeros_like(parameter) for parameter in trainable_parameters(self.module)]
        weighing = self._weighing(loss_fn)
        if not weighing.is_sum:
            if weighing.is_guess:
                self._guessed.exchange(None, self.ranks)
            factor_of_rank(0.0, self.ranks)
        self.average(nothing)
        return nothing

    def find_reached(self, inputs: Batch, targets: Batch) -> None:
        """Finds the weights that the loss reaches, for `accumulate`. This rank does so by itself."""
        with self.unmoved():
            loss = self.loss(self.outputs(self.module, inputs, None, first=False), targets, None)
            check_that_all_are_the_models(loss, self.module)
            check_that_no_checkpoint_is_reentrant(loss, self.module)
            self._reached = gradient_and_reached(loss, self.module)[1]

    def backward_of(self, loss: Tensor, *, over_ranks: bool = True) -> None:
        """Calls `loss.backward()`, with the loss scaled if there is a scaler.

        Args:
            loss: a scalar.
            over_ranks: whether the outputs are those of the wrapped model, so that the ranks average the gradient.
        """
        with self._waiting(over_ranks or self.ranks.waits_in_passes):
            self._scale(with_a_gradient(loss)).backward()

    def accumulate(self, gradients: list[Tensor]) -> None:
        """Adds gradients that a method combined to `.grad`, as `backward` would.

        The tensors may become `.grad` themselves; do not write to them afterward.
        """
        over_ranks = isinstance(self.model, DistributedDataParallel)
        if over_ranks and not self.average_over_ranks:
            self.average(gradients)
        if self.scaler is not None:
            gradients = scaled(gradients, self._scale(torch.ones_like(gradients[0].flatten()[0])))
        for place, (parameter, part) in enumerate(
            zip(trainable_parameters(self.module), gradients, strict=True)
        ):
            # as after `backward`, no `.grad` where there is no gradient, because weight decay would act on zero;
            # another rank may have reached the parameter
            if over_ranks or place in self._reached.places:
                part = part.to_sparse(1) if place in self._reached.sparse else part
                parameter.grad = part if parameter.grad is None else parameter.grad.add_(part)

    @property
    def averages(self) -> bool:
        """Whether every gradient is averaged over ranks. Then all ranks take part, also a rank without samples."""
        if not (self.average_over_ranks and has_ranks(self.model)):
            return False
        check_that_none_joins(self.model)
        return True

    @property
    def share_a_batch(self) -> bool:
        """Whether the ranks together do what one process does with the whole batch, as always under FSDP2."""
        return self.averages or is_sharded(self.model)

    def average(self, tensors: list[Tensor]) -> None:
        """The plain mean over the ranks, in place, with one all-reduce. Needs DistributedDataParallel."""
        assert isinstance(self.model, DistributedDataParallel)
        check_that_none_joins(self.model)
        self.ranks.agree()
        mean_over_ranks(tensors, self.model.process_group)

    def rank_factor(self, inputs: Batch, targets: Batch, loss_fn: LossFunction | None = None) -> float:
        """The factor of this rank's loss with which the plain mean over the ranks is the loss of the whole batch.

        It is 1 where each rank's part is a batch of its own, and 0 on a rank in whose part nothing counts. Ranks that
        share a batch wait for each other.

        Args:
            inputs, targets: this rank's part of the batch.
            loss_fn: as for `gradient`.
        """
        if not self.share_a_batch:
            return 1.0
        weighing = self._weighing(loss_fn)
        if weighing.is_sum:
            return float(dist.get_world_size(self.ranks.group))
        if weighing.is_guess:
            self._guessed.exchange(targets, self.ranks)
        return self.factor_by(weighing.weight(inputs, targets))

    def factor_by(self, weight: Tensor | float) -> float:
        """`rank_factor` where the method itself knows the weight of its mean, such as how many samples it keeps."""
        return factor_of_rank(float(weight), self.ranks) if self.share_a_batch else 1.0

    def loss(self, outputs: Any, targets: Batch, indices: Tensor | None) -> Tensor:
        """The mean loss of outputs.

        Raises:
            ValueError: the loss remembers samples and their indices are missing, or the loss fails or is no scalar.
        """
        if not self._looked_at_outputs:
            self._looked_at_outputs = True
            warn_of_probabilities(self.loss_fn, outputs)
        if not remembers_samples(self.loss_fn):
            return checked_loss(self.loss_fn, outputs, targets)
        if indices is None:
            raise ValueError(
                f"indices: {type(self.loss_fn).__name__} remembers samples by position; pass them"
            )
        return checked_loss(self.loss_fn, outputs, targets, indices)

    def outputs(self, model: nn.Module, inputs: Batch, indices: Tensor | None, *, first: bool) -> Any:
        """The outputs of a forward pass, which counts as one gradient of each sample.

        Args:
            model: `self.model` or `self.module`.
            inputs, indices: as for `backward`.
            first: whether this is the step's pass at the unperturbed weights, which the loss remembers.
        """
        self.sample_gradients += samples_in(inputs) or 1
        ranks = self.ranks
        if model is not self.module:
            # DistributedDataParallel may share buffers before the pass
            ranks.agree()
        with self._waiting(ranks.waits_in_passes):
            outputs = self.forward(model, inputs)
        self._state.check_set_up()
        if first and indices is not None and remembers_samples(self.loss_fn):
            self.loss_fn.remember(outputs.detach(), indices)
        return outputs

    @torch.no_grad()
    def outputs_alone(self, inputs: Batch, targets: Batch, indices: Tensor | None) -> Any:
        """The outputs of a batch, without their graph. They count as a gradient of each sample."""
        with self.unmoved():
            return joined(
                [
                    self.outputs(self.module, piece.inputs, piece.indices, first=False)
                    for piece in self._weighing().pieces(inputs, targets, indices, self.micro_batch_size)
                ]
            )

    def forward(self, model: nn.Module, inputs: Batch) -> Any:
        """The outputs of a forward pass in the precision of training. The pass is neither counted nor remembered."""
        run = partial(run_as_given, self.run, is_whole=self.takes_whole_batches)
        if self.autocast_dtype is None:
            return run(model, inputs)
        with torch.autocast(next(model.parameters()).device.type, self.autocast_dtype):
            outputs = run(model, inputs)
        # in half precision the losses of different samples would round to the same number
        return as_float32(outputs)

    def _weighing(self, loss_fn: LossFunction | None = None) -> Weighing:
        if loss_fn is not None:
            return Weighing(loss_fn)
        return Weighing(self.loss_fn, self.count, self.takes_whole_batches)

    def _part_of_loss(self, outputs: Any, piece: Piece, loss_fn: LossFunction | None = None) -> Tensor:
        """What a piece adds to the mean loss of the batch."""
        if piece.share == 0:
            return zero_of(outputs)
        if loss_fn is not None:
            return part_of_mean(checked_loss(loss_fn, outputs, piece.targets), piece.share)
        loss = self.loss(outputs, piece.targets, piece.indices)
        if self.share_a_batch and self._weighing().is_guess:
            # before the ranks wait for each other
            self._guessed.check_part_of_rank(self.loss_fn, outputs, piece.targets, loss)
        return part_of_mean(loss, piece.share)

    def _with_gradient_of(self, loss: Tensor, total: list[Tensor] | None) -> list[Tensor]:
        """The gradient of a piece, added to the total of those before."""
        with self._waiting(self.ranks.waits_in_passes):
            part, reached = gradient_and_reached(self._scale(loss), self.module)
        self._reached.add(reached)
        if total is None:
            return part
        torch._foreach_add_(total, part)
        return total

    def _must_add_up(self, pieces: list[Piece], loss_fn: LossFunction | None = None) -> bool:
        """Whether the loss of the batch is compared with that of its pieces."""
        is_known = loss_fn is None and (remembers_samples(self.loss_fn) or self._guessed.adds_up)
        return len(pieces) > 1 and not is_known

    def _sum(
        self,
        losses: list[Tensor],
        outputs: list[Any],
        pieces: list[Piece],
        loss_fn: LossFunction | None = None,
    ) -> Tensor:
        """The mean loss of the batch. If its pieces are weighted by a guess, their sum is compared with it."""
        if self._must_add_up(pieces, loss_fn):
            with self.unmoved():
                if loss_fn is None:
                    self._guessed.check_pieces(self.loss_fn, outputs, pieces, losses)
                    self._guessed.adds_up = not self._weighing().is_guess
                else:
                    targets = [piece.targets for piece in pieces]
                    check_that_pieces_add_up(loss_fn, outputs, targets, torch.stack(losses))
        return sum_of_parts(losses)

    def unmoved(self) -> AbstractContextManager[State | None]:
        """See `StepState.unmoved`."""
        return self._state.unmoved(self.module, self._called())

    def forget_state(self) -> None:
        """Ends the step: what its pass at w began with is kept no longer."""
        self._state.forget()

    def _called(self) -> list[Any]:
        return objects_called([] if remembers_samples(self.loss_fn) else [self.loss_fn], self.run)

    def _waiting(self, ranks_wait: bool) -> AbstractContextManager[None]:
        return self.ranks.operation() if ranks_wait else nullcontext()

    def _scale(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)
