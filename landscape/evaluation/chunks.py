"""The data of a pass, cut into chunks. The chunks lie on the device if they fit into the memory budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.data.batches import Batch, bytes_of, mapped, rows_of, samples_in
from landscape.evaluation.channels_last import channels_last_if_faster
from landscape.loss.objective import Objective


@dataclass(frozen=True)
class PassChunk:
    """A part of the data of a pass.

    Attributes:
        inputs: the inputs of the model.
        targets: for each objective, the targets with which it compares the outputs.
        weights: for each objective, the weights of the samples' losses, (samples,).
        labeled: for each objective, whether each sample counts for its accuracy, (samples,).
        totals: for each objective, the weight of the mean loss of this part.
    """

    inputs: Batch
    targets: list[Batch]
    weights: list[Tensor]
    labeled: list[Tensor]
    totals: list[float]


@dataclass(frozen=True)
class OnDevice:
    """Chunks that lie on the device or elsewhere. Reading a chunk copies it to the device."""

    chunks: list[PassChunk]
    device: torch.device
    are_there: bool

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[PassChunk]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> PassChunk:
        chunk = self.chunks[index]
        return chunk if self.are_there else mapped(chunk, lambda tensor: tensor.to(self.device))


def held_chunks(objectives: list[Objective]) -> OnDevice:
    """The inputs of each chunk, with the targets of each objective, in the layout in which forward passes run fastest.

    The chunks lie on the device if the inputs fit into the memory budget. They are for forward passes only.

    Args:
        objectives: objectives with the same inputs, whose samples have one form.
    """
    first = objectives[0]
    inputs = first.inputs
    fits = bytes_of(inputs) <= first.memory_budget
    if fits:
        inputs = mapped(inputs, lambda tensor: tensor.to(first.device))
    if isinstance(inputs, Tensor):
        with torch.no_grad():
            inputs = channels_last_if_faster(
                inputs, first.model, lambda some: first.outputs(first.theta, some.to(first.device))
            )
    samples = samples_in(inputs)
    assert samples is not None
    # chunks are as equal as possible, because each size needs its own trace
    size = math.ceil(samples / math.ceil(samples / first.chunk_size))
    chunks = []
    for start in range(0, samples, size):
        rows = slice(start, start + size)
        pairs = [rows_of((each.inputs, each.targets), rows) for each in objectives]
        weights = [each.counting.of_samples(pair) for each, pair in zip(objectives, pairs, strict=True)]
        labeled = [each.counting.have_labels(pair) for each, pair in zip(objectives, pairs, strict=True)]
        totals = [each.counting.weight_of(pair) for each, pair in zip(objectives, pairs, strict=True)]
        chunk = PassChunk(rows_of(inputs, rows), [y for _, y in pairs], weights, labeled, totals)
        chunks.append(mapped(chunk, lambda tensor: tensor.to(first.device)) if fits else chunk)
    return OnDevice(chunks, first.device, fits)
