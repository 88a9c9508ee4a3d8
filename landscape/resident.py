"""Data cut into chunks, on the device where they fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.objective import Objective


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
    """[(inputs, (targets of each objective))] of each chunk, on the device where they fit the memory budget."""
    lead = objectives[0]
    device = lead.device if lead.inputs.nbytes <= lead.memory_budget else lead.inputs.device
    inputs = lead.inputs.to(device).split(lead.chunk_size)
    targets = [objective.targets.to(device).split(lead.chunk_size) for objective in objectives]
    return OnDevice(list(zip(inputs, zip(*targets, strict=True), strict=True)), lead.device)
