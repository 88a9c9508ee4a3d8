"""The samples of an Objective: collected from the caller's data, held in memory, read in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.loss.checks import check_that_it_is_a_batch
from landscape.loss.random_state import borrowed_generators

Data = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]
"""(inputs, targets), or batches of such pairs."""


@dataclass(frozen=True)
class Chunks:
    """A data set that is read in chunks. Each chunk is a copy on the device, because a model may change its inputs."""

    inputs: Tensor
    targets: Tensor
    chunk_size: int
    device: torch.device

    @property
    def sizes(self) -> list[int]:
        """Samples of each chunk."""
        return [len(targets) for targets in self.targets.split(self.chunk_size)]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rows = slice(index * self.chunk_size, (index + 1) * self.chunk_size)
        inputs, targets = self.inputs[rows], self.targets[rows]
        return inputs.to(self.device, copy=True), targets.to(self.device, copy=True)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[index] for index in range(len(self.sizes)))


def collected(data: Data, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """All inputs and all targets of the data; floating-point tensors in `dtype`.

    Raises:
        ValueError: the data hold no samples, or a batch is not a pair of tensors of one length.
    """
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor):
        batches = [data]
    else:
        # a DataLoader draws from the global random state, even without shuffling
        with borrowed_generators():
            batches = list(data)
    for batch in batches:
        check_that_it_is_a_batch(batch)
    if not batches or sum(len(batch[0]) for batch in batches) == 0:
        raise ValueError("data: holds no samples")
    inputs = torch.cat([batch[0] for batch in batches])
    targets = torch.cat([batch[1] for batch in batches])
    return _cast(inputs.detach(), dtype), _cast(targets.detach(), dtype)


def held(inputs: Tensor, targets: Tensor, device: torch.device, budget: int) -> tuple[Tensor, Tensor]:
    """The samples where they stay: both on the device if they fit into `budget` bytes, else where the inputs are."""
    place = device if inputs.nbytes + targets.nbytes <= budget else inputs.device
    # Not channels last: oneDNN 3.12 writes past its workspace in the weights' gradient of 1x1 convolutions with a
    # stride and fewer than 8 (AVX-512: 16) channels (uxlfoundation/oneDNN issue 6035), which ends the process. GPUs
    # are slower with channels last when TF32 is off.
    return inputs.to(place).contiguous(), targets.to(place)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
