"""Data cut into chunks, on the device where they fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.evaluation.channels_last import in_fastest_layout
from landscape.loss.objective import Objective


@dataclass(frozen=True)
class OnDevice:
    """Chunks that lie wherever there is room, and are on the device when read."""

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
    """[(inputs, (targets of each objective))] of each chunk, on the device where they fit the memory budget.

    For forward passes alone: in the layout in which these run fastest.
    """
    lead = objectives[0]
    device = lead.device if lead.inputs.nbytes <= lead.memory_budget else lead.inputs.device
    with torch.no_grad():
        images = in_fastest_layout(
            lead.inputs.to(device), lead.model, lambda some: lead.outputs(lead.theta, some.to(lead.device))
        )
    # chunks of equal size, as far as may be: another size is traced anew
    size = math.ceil(len(images) / math.ceil(len(images) / lead.chunk_size))
    inputs = images.split(size)
    targets = [objective.targets.to(device).split(size) for objective in objectives]
    return OnDevice(list(zip(inputs, zip(*targets, strict=True), strict=True)), lead.device)
