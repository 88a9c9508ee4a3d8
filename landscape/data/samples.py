"""The samples of an Objective, held in memory and read in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from landscape.data.batches import (
    bytes_of,
    copied_to,
    digest_of,
    form_of,
    joined_and_freed,
    mapped,
    rows_of,
    samples_in,
)
from landscape.data.changed_data import Unchanged
from landscape.data.class_labels import LabelBounds
from landscape.data.complex_numbers import is_whole
from landscape.data.counts import Counting, Pair
from landscape.data.first_pass import FirstPass


@dataclass(frozen=True)
class Chunk:
    """A part of the data whose mean loss is computed at once.

    Attributes:
        pair: inputs and targets, where they are stored.
        weight: the weight of the part's mean loss.
        samples: number of samples; 1 for a batch that cannot be cut.
        device: the model's.
    """

    pair: Pair
    weight: float
    samples: int
    device: torch.device

    @property
    def shapes(self) -> tuple[str, tuple[torch.Size, ...]]:
        """A key of the chunk's form. Chunks of tensors that differ only in their values have equal keys."""
        leaves, form = tree_flatten(self.pair)
        return str(form), tuple(leaf.shape for leaf in leaves)

    def read(self) -> Pair:
        """A copy on the device, because a model may change its inputs."""
        inputs, targets = self.pair
        # each by itself, because both may be the same batch
        return copied_to(inputs, self.device), copied_to(targets, self.device)


@dataclass(frozen=True)
class Held:
    """A data set in memory.

    Attributes:
        blocks: pairs of tensors whose samples can be cut, or batches that cannot.
        chunks: the blocks, cut into at most `chunk_size` samples each.
        labels: the bounds of the labels.
        unchanged: notices data that are changed later.
        first_pass: what is done with the chunks in the first pass over them.
    """

    blocks: tuple[Pair, ...]
    chunks: tuple[Chunk, ...]
    labels: LabelBounds
    unchanged: Unchanged
    first_pass: FirstPass[Chunk] = field(default_factory=FirstPass)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(chunk.samples for chunk in self.chunks)

    @property
    def weight(self) -> float:
        """Sum of the chunks' weights."""
        return sum(chunk.weight for chunk in self.chunks)

    @property
    def is_uniform(self) -> bool:
        """Whether the data are samples of one form. Such data can be cut anywhere."""
        return len(self.blocks) == 1 and samples_in(self.blocks[0]) is not None

    @property
    def can_be_traced(self) -> bool:
        """Whether all chunks are tensors in memory. Results about such chunks can be kept."""
        return all(samples_in(block) is not None for block in self.blocks)

    def __iter__(self) -> Iterator[Chunk]:
        self.unchanged.check()
        return self.first_pass.over(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)

    @property
    def fingerprint(self) -> str:
        """A key of the samples. Data of the same samples have equal keys."""
        return f"{sum(map(digest_of_pair, self.blocks)):x}"

    def first(self, count: int) -> Pair:
        """Some of the first samples; at most `count` if the data can be cut."""
        block = self.blocks[0]
        return block if samples_in(block) is None else rows_of(block, slice(0, count))

    def all_or_first(self) -> Pair:
        """The samples that checks may look at: the first block."""
        return self.blocks[0]

    def rows(self, rows: slice | Tensor) -> tuple[Pair, ...]:
        """Blocks of some of the samples, in the order of the data.

        Raises:
            ValueError: the data are several blocks, whose samples have no common numbering, or were changed.
        """
        self.unchanged.check()
        if not self.is_uniform:
            raise ValueError(
                "samples: these data are batches of several forms, or batches that cannot be cut; make an Objective of "
                "the batches wanted instead"
            )
        if isinstance(rows, Tensor):
            _check_rows(rows, self.samples)
        return (rows_of(self.blocks[0], rows),)


@dataclass(frozen=True)
class Cut:
    """Cuts batches into chunks.

    Attributes:
        counting: the weights of batches.
        chunk_size: most samples of a chunk.
        device: the model's.
    """

    counting: Counting
    chunk_size: int
    device: torch.device

    def __call__(self, pair: Pair) -> Iterator[Chunk]:
        """The chunks of a batch; the whole batch if it cannot be cut."""
        samples = samples_in(pair)
        if samples is None:
            yield Chunk(pair, self.counting.weight_of(pair), 1, self.device)
            return
        for start in range(0, samples, self.chunk_size):
            part = rows_of(pair, slice(start, start + self.chunk_size))
            yield Chunk(
                part, self.counting.weight_of(part), min(self.chunk_size, samples - start), self.device
            )


def held(batches: Sequence[Pair], cut: Cut, budget: int) -> Held:
    """Batches in memory. They are moved to the device if they fit into `budget` bytes; else they stay where they are.

    Args:
        batches: pairs. A list of them is emptied, so that no sample is held twice.
        cut: cuts them into chunks.
        budget: number of bytes.

    Raises:
        ValueError: no samples, or none that counts.
    """
    runs = list(_runs_of_one_form([batch for batch in batches if samples_in(batch) != 0]))
    if isinstance(batches, list):
        batches.clear()
    if not runs:
        raise ValueError("data: holds no samples")
    blocks = [_joined(alike) for alike in runs]
    moves = sum(map(bytes_of, blocks)) <= budget

    # Not in channels last. oneDNN 3.12 then writes past its workspace (uxlfoundation/oneDNN issue 6035), which ends the
    # process: for the weights' gradient of 1x1 convolutions with a stride and fewer than 8 channels (AVX-512: 16). GPUs
    # are slower with channels last when TF32 is off.
    def placed(tensor: Tensor) -> Tensor:
        tensor = tensor.to(cut.device) if moves else tensor
        return tensor.contiguous() if tensor.layout == torch.strided else tensor

    blocks = [mapped(block, placed) for block in blocks]
    labels = LabelBounds(cut.counting.ignored)
    for block in blocks:
        labels.note(block)
    chunks = tuple(chunk for block in blocks for chunk in cut(block))
    found = Held(tuple(blocks), chunks, labels, Unchanged(blocks))
    check_that_something_counts(found.weight)
    return found


def _check_rows(rows: Tensor, samples: int) -> None:
    """Raises ValueError unless these are a mask of the samples, or indices of some of them."""
    if rows.ndim != 1 or not is_whole(rows):
        raise ValueError(
            f"samples: must be indices (m,) or a mask ({samples},) of bool, got {tuple(rows.shape)} in {rows.dtype}"
        )
    if rows.dtype == torch.bool:
        if len(rows) != samples:
            raise ValueError(
                f"samples: a mask must have an entry for each of the {samples} samples, got {len(rows)}"
            )
    elif rows.numel() and not -samples <= int(rows.min()) <= int(rows.max()) < samples:
        raise ValueError(
            f"samples: indices must lie in [0, {samples}), got {int(rows.min())} to {int(rows.max())}"
        )


def digest_of_pair(pair: Pair) -> int:
    """A digest of the content of inputs and targets. A batch that is both is read once."""
    inputs, targets = pair
    return digest_of(inputs if inputs is targets else pair)


def check_that_something_counts(weight: float) -> None:
    """Raises ValueError for data without weight, because their mean loss is no number."""
    if not weight > 0:
        raise ValueError("data: no sample counts: all targets are ignored, or all weights are 0")


def _joined(run: list[Pair]) -> Pair:
    """One pair with the samples of several pairs of one form, which are freed. Whole batches are joined once."""
    if any(inputs is not targets for inputs, targets in run):
        whole: Pair = joined_and_freed(run)
        return whole
    batches = [inputs for inputs, _ in run]
    run.clear()
    batch = joined_and_freed(batches)
    return batch, batch


def _runs_of_one_form(batches: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Groups of successive batches that can be joined. A batch that cannot be cut is a group of its own."""
    run: list[Pair] = []
    for batch in batches:
        can_be_cut = samples_in(batch) is not None
        if run and not (can_be_cut and samples_in(run[0]) is not None and form_of(batch) == form_of(run[0])):
            yield run
            run = []
        run.append(batch)
    if run:
        yield run
