"""Which units of a network may change places without changing its function.

The modules' graph is followed from the inputs to the outputs. Every axis of every parameter is described by
segments: so many entries that belong to one group of units, each of which takes `repeat` entries in a row (as when
a feature map is flattened). Units are permuted alike wherever their group appears. Groups that meet in a sum become
one; the inputs and the outputs of the network stay in place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

Axis = tuple[str, int]
"""(name of a parameter or buffer, axis)."""


class Group:
    """Units that are permuted among themselves, or halves of which turned out to be permuted apart."""

    def __init__(self, size: int, *, fixed: bool = False) -> None:
        self.size = size
        self.fixed = fixed
        self.parts: list[Group] = []

    def leaves(self) -> list[Group]:
        """The groups that it now consists of; itself unless it was split or joined to another."""
        return [leaf for part in self.parts for leaf in part.leaves()] if self.parts else [self]


@dataclass(frozen=True)
class Segment:
    """Entries of an axis: those of one group, of which each unit takes `repeat`."""

    group: Group
    repeat: int = 1


@dataclass(frozen=True)
class Structure:
    """The axes of a network's tensors along which units lie.

    Attributes:
        axes: for each, its segments in order.
        groups: those that may be permuted, in order of first appearance.
    """

    axes: dict[Axis, list[Segment]]
    groups: list[Group]


def structure_of(model: nn.Module) -> Structure:
    """Finds the groups of units of a network of linear layers, convolutions and BatchNorm.

    Sums (residual connections), elementwise functions, pooling, flattening, slices in space and padding of
    channels with zeros are followed.

    Raises:
        ValueError: something else stands in the way; the message names it.
    """
    try:
        graph = fx.symbolic_trace(model).graph
    except Exception as error:
        raise ValueError(f"model: its modules cannot be followed: {error}") from error
    axes: dict[Axis, list[Segment]] = {}
    signals: dict[fx.Node, list[Segment] | None] = {}
    modules = dict(model.named_modules())
    for node in graph.nodes:
        if node.op == "placeholder":
            # whatever the inputs are, they stay in place
            signals[node] = None
        elif node.op == "output":
            signals[node] = None
            for source in node.all_input_nodes:
                _fix(signals[source])
        elif node.op == "call_module":
            module = modules[node.target]
            signals[node] = _through(module, node.target, signals[node.args[0]], axes)
        elif node.op in ("call_function", "call_method"):
            signals[node] = _combined(node, signals)
        else:
            raise ValueError(f"model: a parameter of its own ({node.target}) cannot be followed")
    leaves = {
        key: [Segment(leaf, segment.repeat) for segment in segments for leaf in segment.group.leaves()]
        for key, segments in axes.items()
    }
    groups = dict.fromkeys(segment.group for segments in leaves.values() for segment in segments)
    return Structure(leaves, [group for group in groups if not group.fixed and group.size > 1])


def _through(
    module: nn.Module, name: str, signal: list[Segment] | None, axes: dict[Axis, list[Segment]]
) -> list[Segment] | None:
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if getattr(module, "groups", 1) != 1:
            raise ValueError(f"model: the grouped convolution {name!r} cannot be followed")
        columns = module.weight.shape[1]
        if signal is not None:
            channels = sum(leaf.size for segment in signal for leaf in segment.group.leaves())
            repeat, rest = divmod(columns, channels)
            if rest:
                raise ValueError(f"model: {name!r} has {columns} inputs for {channels} units")
            axes[name + ".weight", 1] = [Segment(segment.group, repeat) for segment in signal]
        made = [Segment(Group(module.weight.shape[0]))]
        axes[name + ".weight", 0] = made
        if module.bias is not None:
            axes[name + ".bias", 0] = made
        return made
    if isinstance(module, _BatchNorm):
        if signal is None:
            raise ValueError(f"model: BatchNorm {name!r} of the inputs cannot be followed")
        for key in ("weight", "bias", "running_mean", "running_var"):
            if getattr(module, key) is not None:
                axes[f"{name}.{key}", 0] = signal
        return signal
    if any(True for _ in module.parameters()):
        raise ValueError(f"model: {name!r} ({type(module).__name__}) cannot be followed")
    # without parameters: activations, pooling, flattening, Dropout
    return signal


SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}
UNITWISE = {
    operator.getitem,
    torch.flatten,
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    nn.functional.adaptive_avg_pool2d,
    nn.functional.avg_pool2d,
    nn.functional.dropout,
    nn.functional.gelu,
    nn.functional.leaky_relu,
    nn.functional.max_pool2d,
    nn.functional.relu,
    nn.functional.silu,
    "contiguous",
    "flatten",
    "mean",
    "relu",
    "relu_",
    "squeeze",
    "tanh",
}


def _combined(node: fx.Node, signals: dict[fx.Node, list[Segment] | None]) -> list[Segment] | None:
    arguments: Any = node.args
    if node.target in SUMS and len(node.all_input_nodes) == 2:
        first, second = (signals[source] for source in node.all_input_nodes)
        if first is None or second is None:
            _fix(first)
            _fix(second)
            return first or second
        _join(first, second)
        return first
    signal = signals[node.all_input_nodes[0]]
    if node.target is nn.functional.pad:
        return _padded(signal, arguments[1])
    if node.target is operator.getitem and signal is not None:
        index = arguments[1]
        if not isinstance(index, tuple) or any(part != slice(None) for part in index[:2]):
            raise ValueError(f"model: a selection of units ({node}) cannot be followed")
    if node.target not in UNITWISE:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
        raise ValueError(f"model: the operation {name!r} cannot be followed")
    return signal


def _padded(signal: list[Segment] | None, amounts: Any) -> list[Segment] | None:
    """Zeros among the channels may change places like any units, as long as nothing is added to them."""
    if signal is None or len(amounts) < 6:
        return signal
    before, after = amounts[4:6]
    new = [Segment(Group(size)) if size else None for size in (before, after)]
    return [segment for segment in (new[0], *signal, new[1]) if segment is not None]


def _fix(signal: list[Segment] | None) -> None:
    for segment in signal or []:
        for leaf in segment.group.leaves():
            leaf.fixed = True


def _join(first: list[Segment], second: list[Segment]) -> None:
    """Makes the units of two signals that are added permute alike, splitting groups where their borders differ."""
    left = [leaf for segment in first for leaf in segment.group.leaves()]
    right = [leaf for segment in second for leaf in segment.group.leaves()]
    if sum(leaf.size for leaf in left) != sum(leaf.size for leaf in right):
        raise ValueError("model: a sum of different numbers of units cannot be followed")
    while left:
        a, b = left[0], right[0]
        if a.size == b.size:
            if a is not b:
                _merge(a, b)
            left, right = left[1:], right[1:]
        elif a.size > b.size:
            left[:1] = _split(a, b.size)
        else:
            right[:1] = _split(b, a.size)


def _merge(group: Group, other: Group) -> None:
    """Makes `other` the same as `group`."""
    group.fixed = group.fixed or other.fixed
    other.parts = [group]


def _split(group: Group, size: int) -> list[Group]:
    group.parts = [Group(size, fixed=group.fixed), Group(group.size - size, fixed=group.fixed)]
    return group.parts


Permutations = dict[Group, Any]
"""For each group the positions from which its units are taken, an index tensor."""


def order_of(segments: list[Segment], permutations: Permutations) -> torch.Tensor:
    """The positions from which the entries of an axis are taken."""
    parts, start = [], 0
    for segment in segments:
        size, repeat = segment.group.size, segment.repeat
        units = permutations.get(segment.group, torch.arange(size))
        parts.append(start + (units.unsqueeze(1) * repeat + torch.arange(repeat)).flatten())
        start += size * repeat
    return torch.cat(parts)


Tensors = dict[str, torch.Tensor]


def permuted(
    tensors: Tensors,
    structure: Structure,
    permutations: Permutations,
    *,
    but: Callable[[Axis], bool] = lambda _: False,
) -> Tensors:
    """Parameters and buffers with their units in another order, along all axes but those of which `but` is true."""
    result = dict(tensors)
    for (name, axis), segments in structure.axes.items():
        if name in result and not but((name, axis)):
            order = order_of(segments, permutations).to(result[name].device)
            result[name] = result[name].index_select(axis, order)
    return result
