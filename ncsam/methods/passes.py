"""How the passes of a step run: precision, micro-batches and ranks.

A method says which gradients it needs, and this module computes them. So autocast, loss scaling, micro-batches and
DistributedDataParallel are written once, for all methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

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
    check_batch,
    detached,
    is_known,
    is_sum,
    joined,
    part_of_mean,
    piece_sizes,
    rows_of,
    samples_in,
    sum_of_parts,
    weight_of,
)
from ncsam.methods.call_checks import takes_by_name, warn_of_probabilities
from ncsam.methods.gradients import gradient_and_reached
from ncsam.methods.loss_checks import check_that_dtypes_fit, check_that_pieces_add_up, checked_loss
from ncsam.methods.perturbation import trainable_parameters, unmoved_buffers
from ncsam.methods.tensor_lists import scaled

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> the mean loss over the samples, a scalar."""


class RememberingLoss(Protocol):
    """A loss that remembers each training sample, such as ELR with its targets."""

    def __call__(self, outputs: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """The mean loss over the samples, a scalar; `indices` are the samples' positions in the training set."""

    def remember(self, outputs: Tensor, indices: Tensor) -> None:
        """Remembers the outputs of a training pass. Called once a step, at the unperturbed weights."""


TrainingLoss = LossFunction | RememberingLoss
"""The loss of a method."""


def remembers_samples(loss_fn: object) -> TypeGuard[RememberingLoss]:
    """Whether a loss, or a class of losses, remembers each sample and so takes the samples' positions."""
    return hasattr(loss_fn, "remember")


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
        average_over_ranks: whether, under DistributedDataParallel, every gradient is averaged over the samples of all
            ranks before the weights are perturbed, as if one process had the whole batch. NCSAM still draws on each
            rank from its own part. If False, each rank perturbs by the gradient of its own part, and a step costs one
            all-reduce (m-sharpness, Foret et al. 2021, section 4).
        sample_gradients: number of per-sample gradients computed so far.
        run: (model, inputs) -> outputs; None: `model(inputs)`, or `model(**batch)` for whole batches.
        count: batch -> the weight of a piece's mean loss when the pieces are averaged; None: the number of samples, or
            the sum by which a loss of torch divides.
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
    _reached: set[int] = field(default_factory=set)
    _adds_up: bool = False
    _looked_at_outputs: bool = False

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
            moves_statistics: whether the running statistics of BatchNorm and the memory of the loss move. They do in
                the pass at the unperturbed weights.

        Returns:
            The mean loss, detached.
        """
        losses, compared = [], []
        pieces = self._pieces(inputs, targets, indices)
        with self._statistics(moves_statistics):
            for number, (share, piece_inputs, piece_targets, piece_indices) in enumerate(pieces):
                is_last = number == len(pieces) - 1
                model = self.model if is_last else self.module
                outputs = self.outputs(model, piece_inputs, piece_indices, first=moves_statistics)
                loss = part_of_mean(self.loss(outputs, piece_targets, piece_indices), share)
                losses.append(loss.detach())
                if self._must_add_up(pieces):
                    compared.append(detached(outputs))
                if is_last:
                    # may raise, and so comes before the ranks wait for each other
                    mean = self._sum(losses, compared, pieces)
                self.backward_of(loss, over_ranks=is_last)
        return mean

    def gradient(
        self,
        inputs: Batch,
        targets: Batch,
        indices: Tensor | None,
        *,
        moves_statistics: bool = False,
        loss_fn: LossFunction | None = None,
    ) -> tuple[Tensor, Any, list[Tensor]]:
        """The gradient of the batch's mean loss; `.grad` is not touched.

        Args:
            inputs, targets, indices, moves_statistics: as for `backward`.
            loss_fn: a loss in the place of the method's.

        Returns:
            The mean loss and the outputs (batch, ...), detached, and the gradient.
        """
        losses, outputs, total = [], [], None
        self._reached = set()
        pieces = self._pieces(inputs, targets, indices)
        with self._statistics(moves_statistics):
            for share, piece_inputs, piece_targets, piece_indices in pieces:
                output = self.outputs(self.module, piece_inputs, piece_indices, first=moves_statistics)
                if not isinstance(output, Tensor) and self.run is None and not self.takes_whole_batches:
                    raise ValueError(
                        f"model: must return a tensor, got {type(output).__name__}; wrap it in a module that returns "
                        "the outputs alone, or say by forward= which are wanted"
                    )
                if loss_fn is None:
                    loss = self.loss(output, piece_targets, piece_indices)
                else:
                    loss = loss_fn(output, piece_targets)
                loss = part_of_mean(loss, share)
                with self._waiting(self.ranks.waits_in_passes):
                    part, reached = gradient_and_reached(self._scale(loss), self.module)
                self._reached |= reached
                if total is None:
                    total = part
                else:
                    torch._foreach_add_(total, part)
                losses.append(loss.detach())
                outputs.append(detached(output))
        assert total is not None
        if self.scaler is not None:
            total = scaled(total, 1 / self._scale(torch.ones_like(losses[0])))
        if self.averages:
            self.average(total, samples_in(inputs) or 1)
        mean = sum_of_parts(losses) if loss_fn else self._sum(losses, outputs, pieces)
        return mean, joined(outputs), total

    def find_reached(self, inputs: Batch, targets: Batch) -> None:
        """Finds the weights that the loss reaches, for `accumulate`. This rank does so by itself."""
        with self._statistics(move=False):
            loss = self.loss(self.outputs(self.module, inputs, None, first=False), targets, None)
            self._reached = gradient_and_reached(loss, self.module)[1]

    def backward_of(self, loss: Tensor, *, over_ranks: bool = True) -> None:
        """Calls `loss.backward()`, with the loss scaled if there is a scaler.

        Args:
            loss: a scalar.
            over_ranks: whether the outputs are those of the wrapped model, so that the ranks average the gradient.
        """
        with self._waiting(over_ranks or self.ranks.waits_in_passes):
            self._scale(loss).backward()

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
            if over_ranks or place in self._reached:
                parameter.grad = part if parameter.grad is None else parameter.grad.add_(part)

    @property
    def averages(self) -> bool:
        """Whether every gradient is averaged over ranks. Then all ranks take part, also a rank without samples."""
        return self.average_over_ranks and isinstance(self.model, DistributedDataParallel)

    def average(self, tensors: list[Tensor], weight: float = 1.0) -> None:
        """Averages over the ranks by their weights, in place, with one all-reduce. Needs DistributedDataParallel."""
        assert isinstance(self.model, DistributedDataParallel)
        self.ranks.agree()
        flat = torch.cat(
            [*(tensor.flatten() * weight for tensor in tensors), tensors[0].new_full((1,), weight)]
        )
        dist.all_reduce(flat, group=self.model.process_group)
        *sums, total = flat.split([*(tensor.numel() for tensor in tensors), 1])
        # the mean is zero where no rank has a weight
        total = total.where(total > 0, torch.ones_like(total))
        torch._foreach_copy_(tensors, [(s / total).view_as(t) for s, t in zip(sums, tensors, strict=True)])

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
        if first and indices is not None and remembers_samples(self.loss_fn):
            self.loss_fn.remember(outputs.detach(), indices)
        return outputs

    @torch.no_grad()
    def outputs_alone(self, inputs: Batch, targets: Batch, indices: Tensor | None) -> Any:
        """The outputs of a batch, without their graph. They count as a gradient of each sample."""
        with self._statistics(False):
            return joined(
                [
                    self.outputs(self.module, part, positions, first=False)
                    for _, part, _, positions in self._pieces(inputs, targets, indices)
                ]
            )

    def forward(self, model: nn.Module, inputs: Batch) -> Any:
        """The outputs of a forward pass in the precision of training. The pass is neither counted nor remembered."""
        if self.autocast_dtype is None:
            return self._run(model, inputs)
        with torch.autocast(next(model.parameters()).device.type, self.autocast_dtype):
            outputs = self._run(model, inputs)
        # in half precision the losses of different samples would round to the same number
        return as_float32(outputs)

    def _run(self, model: nn.Module, inputs: Batch) -> Any:
        if self.run is not None:
            return self.run(model, inputs)
        try:
            by_name = isinstance(inputs, dict) and takes_by_name(self.module, inputs)
            return model(**inputs) if by_name or self.takes_whole_batches else model(inputs)
        except (TypeError, AttributeError, RuntimeError) as error:
            check_that_dtypes_fit(model, inputs, error)
            if isinstance(inputs, Tensor) or isinstance(error, RuntimeError):
                raise
            raise ValueError(
                f"inputs: the model cannot be run on a {type(inputs).__name__}: {error}; say by forward= how it is run"
            ) from error

    @contextmanager
    def by_closure(self, closure: Callable[[], Tensor]) -> Iterator[None]:
        """Inside the block, each pass calls the closure, which returns the loss."""
        kept = self.run, self.loss_fn
        self.run, self.loss_fn = lambda *_: closure(), lambda loss, _: loss
        try:
            yield
        finally:
            self.run, self.loss_fn = kept

    @contextmanager
    def with_mean(self, loss_fn: LossFunction) -> Iterator[None]:
        """Inside the block, another mean over the samples takes the place of the loss."""
        kept = self.loss_fn, self.count
        self.loss_fn, self.count = loss_fn, None
        try:
            yield
        finally:
            self.loss_fn, self.count = kept

    def _pieces(self, inputs: Batch, targets: Batch, indices: Tensor | None) -> list[list[Any]]:
        """Share of the batch, inputs, targets and indices of each micro-batch."""
        check_batch(inputs, targets)
        samples, size = samples_in(inputs), self.micro_batch_size
        if size is not None and size < 1:
            raise ValueError(f"micro_batch_size: must be at least 1, got {size}")
        if size is None or samples is None or size >= samples:
            return [[1.0, inputs, targets, indices]]
        pieces = []
        start = 0
        for length in piece_sizes(samples, size):
            rows = slice(start, start + length)
            positions = None if indices is None else indices[rows]
            part, labels = rows_of(inputs, rows), rows_of(targets, rows)
            pieces.append([self._weight(part, labels), part, labels, positions])
            start += length
        if self.count is None and is_sum(self.loss_fn):
            return [[1.0, *piece] for _, *piece in pieces]
        total = sum(weight for weight, *_ in pieces)
        if total == 0:
            return [[1.0, inputs, targets, indices]]
        # a piece of weight 0 has no mean loss
        return [[weight / total, *piece] for weight, *piece in pieces if weight > 0]

    def _must_add_up(self, pieces: list[list[Any]]) -> bool:
        """Whether the loss of the batch is compared with that of its pieces."""
        return len(pieces) > 1 and not remembers_samples(self.loss_fn) and not self._adds_up

    def _sum(self, losses: list[Tensor], outputs: list[Any], pieces: list[list[Any]]) -> Tensor:
        """The mean loss of the batch. If its pieces are weighted by a guess, their sum is compared with it."""
        total = sum_of_parts(losses)
        if self._must_add_up(pieces):
            check_that_pieces_add_up(self.loss_fn, outputs, [targets for _, _, targets, _ in pieces], total)
            self._adds_up = is_known(self.loss_fn) or self.count is not None
        return total

    def _weight(self, inputs: Batch, targets: Batch) -> float:
        if self.count is None:
            return weight_of(self.loss_fn, targets)
        return float(self.count(inputs if self.takes_whole_batches else (inputs, targets)))

    def _statistics(self, move: bool) -> Any:
        return nullcontext() if move else unmoved_buffers(self.module)

    def _waiting(self, ranks_wait: bool) -> AbstractContextManager[None]:
        return self.ranks.operation() if ranks_wait else nullcontext()

    def _scale(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)
