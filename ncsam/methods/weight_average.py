"""Moving averages of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ncsam.methods.deep_copies import deep_copy


class WeightAverage:
    """A network whose weights follow those of a trained one: w <- decay w + (1 - decay) v.

    Args:
        network: the trained one, without wrapper. The average begins at its weights.
        moves_buffers: buffers such as BatchNorm's statistics are averaged too; else they move only in the average's own
            forward passes.
    """

    def __init__(self, network: nn.Module, *, moves_buffers: bool) -> None:
        self.network = deep_copy("model", network).requires_grad_(False)
        self.moves_buffers = moves_buffers

    @torch.no_grad()
    def follow(self, network: nn.Module, decay: float) -> None:
        """Moves the average toward the weights of the trained network."""
        pairs: list[tuple[Tensor, Tensor]] = [
            (own, other.detach())
            for own, other in zip(self.network.parameters(), network.parameters(), strict=True)
        ]
        if self.moves_buffers:
            for own, other in zip(self.network.buffers(), network.buffers(), strict=True):
                if own.is_floating_point():
                    pairs.append((own, other))
                else:
                    own.copy_(other)
        torch._foreach_lerp_([own for own, _ in pairs], [other for _, other in pairs], 1 - decay)
