"""The units of a network in another order."""

from __future__ import annotations

from typing import Any

import torch

from landscape.connectivity.permutable_units import PermutableUnits
from landscape.connectivity.signals import Group, Segment

Permutations = dict[Group, Any]
"""Group -> the positions from which its units are taken, an index tensor."""

Tensors = dict[str, torch.Tensor]


def order_of(segments: list[Segment], permutations: Permutations) -> torch.Tensor:
    """The positions from which the entries of an axis are taken."""
    parts, start = [], 0
    for segment in segments:
        size, repeat = segment.group.size, segment.repeat
        units = permutations.get(segment.group, torch.arange(size, device="cpu"))
        parts.append(start + (units.unsqueeze(1) * repeat + torch.arange(repeat, device="cpu")).flatten())
        start += size * repeat
    return torch.cat(parts)


def permuted(tensors: Tensors, units: PermutableUnits, permutations: Permutations) -> Tensors:
    """Parameters and buffers with their units in another order."""
    result = dict(tensors)
    for (name, axis), segments in units.axes.items():
        if name in result:
            order = order_of(segments, permutations).to(result[name].device)
            result[name] = result[name].index_select(axis, order)
    return result
