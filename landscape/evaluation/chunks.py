"""The data of a pass, cut into chunks. The chunks lie on the device if they fit into the memory budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.evaluation.channels_last import channels_last_if_faster
from landscape.loss.objective import Objective


@dataclass(frozen=True)
class OnDevice:
    """Chunks that lie on the device or elsewhere. Reading a chunk brings it to the device."""

    chunks: list[tuple[Tensor, tuple[Tensor, ...]]]
    device: torch.device

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        inputs, targets = self.chunks[index]
        return inputs.to(self.device), tuple(target.to(self.device) for target in targets)


def held_chunks(objectives: list[Objective]) -> OnDevice:
    """The inputs of each chunk, with the targets of each objective, in the layout in which forward passes run fastest.

    The chunks lie on the device if the inputs fit into the memory budget. They are for forward passes only.
    """
    first = objectives[0]
    device = first.device if first.inputs.nbytes <= first.memory_budget else first.inputs.device
    with torch.no_grad():
        images = channels_last_if_faster(
            first.inputs.to(device),
            first.model,
            lambda some: first.outputs(first.theta, some.to(first.device)),
        )
    # chunks as equal as possible, because each size needs a trace of its own
    size = math.ceil(len(images) / math.ceil(len(images) / first.chunk_size))
    inputs = images.split(size)
    targets = [objective.targets.to(device).split(size) for objective in objectives]
    return OnDevice(list(zip(inputs, zip(*targets, strict=True), strict=True)), first.device)
