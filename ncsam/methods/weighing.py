"""How the losses of the parts of a batch, its micro-batches and its ranks, make up the loss of the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ncsam.methods.as_given import as_given
from ncsam.methods.batches import Batch, Count, check_batch, part_of_mean, piece_sizes, rows_of, samples_in
from ncsam.methods.known_losses import is_known, is_sum, weight_of
from ncsam.methods.training_loss import remembers_samples
from ncsam.options import check_at_least


@dataclass(frozen=True)
class Piece:
    """A part of a batch that passes through the model at once.

    Attributes:
        share: of its mean loss in that of the batch; 0: the piece has no sample that counts, and no mean loss.
        inputs: (piece, ...).
        targets: (piece, ...).
        indices: int64 (piece,), positions in the training set.
    """

    share: float
    inputs: Batch
    targets: Batch
    indices: Tensor | None


@dataclass(frozen=True)
class Weighing:
    """By what the mean losses of parts are weighted.

    Attributes:
        loss_fn: (outputs, targets) -> mean loss, or the sum.
        count: batch -> the weight of its mean loss; None: by what a loss of torch divides, or the number of samples.
        takes_whole_batches: whether `count` gets the inputs alone, which are whole batches.
    """

    loss_fn: object
    count: Count | None = None
    takes_whole_batches: bool = False

    @property
    def is_sum(self) -> bool:
        """Whether the losses of parts are added and not averaged."""
        return self.count is None and is_sum(self.loss_fn)

    @property
    def is_guess(self) -> bool:
        """Whether parts are weighted by their samples, for want of what the mean of an unknown loss divides by."""
        return self.count is None and not (is_known(self.loss_fn) or remembers_samples(self.loss_fn))

    def weight(self, inputs: Batch, targets: Batch) -> float:
        """The weight of the mean loss of a part, such as the number of its labels."""
        if self.count is None:
            return weight_of(self.loss_fn, targets)
        return float(self.count(as_given(inputs if self.takes_whole_batches else (inputs, targets))))

    def pieces(self, inputs: Batch, targets: Batch, indices: Tensor | None, size: int | None) -> list[Piece]:
        """The micro-batches of a batch, in order.

        Raises:
            ValueError: the batch is empty, or the size is below 1.
        """
        check_batch(inputs, targets)
        samples = samples_in(inputs)
        if size is not None:
            check_at_least("micro_batch_size", size, 1)
        if size is None or samples is None or size >= samples:
            return [Piece(1.0, inputs, targets, indices)]
        parts = []
        start = 0
        for length in piece_sizes(samples, size):
            rows = slice(start, start + length)
            positions = None if indices is None else indices[rows]
            parts.append((rows_of(inputs, rows), rows_of(targets, rows), positions))
            start += length
        if self.is_sum:
            return [Piece(1.0, *part) for part in parts]
        weights = [self.weight(part, labels) for part, labels, _ in parts]
        # a batch in which nothing counts has the loss that the loss function gives for nothing
        total = sum(weights)
        shares = [weight / total if total else 1 / len(parts) for weight in weights]
        return [Piece(share, *part) for share, part in zip(shares, parts, strict=True)]


def zero_of(outputs: Batch) -> Tensor:
    """Zero as a function of the outputs, with a gradient of zero whatever they are."""
    leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
    zeros = [leaf.masked_fill(torch.ones_like(leaf, dtype=torch.bool), 0).sum() for leaf in leaves]
    return torch.stack(zeros).sum() if zeros else torch.zeros(())


def part_of_rank(part: Tensor, outputs: Batch, factor: float) -> Tensor:
    """A part of a rank's loss times the factor of the rank; zero where nothing counts, and the loss may be NaN."""
    return part_of_mean(part, factor) if factor else zero_of(outputs)
