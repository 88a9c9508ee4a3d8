"""Which units of a network may change places without changing its function.

The graph of the modules is followed from the inputs to the outputs. Every axis of every parameter consists of segments.
A segment is a row of entries that belong to one group of units; each unit has `repeat` entries in a row, such as those
of a flattened feature map. The units of a group are permuted in the same way wherever the group appears. Groups that
meet in a sum become one group. The inputs and the outputs of the network stay in place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.connectivity.signals import Group, Segment, Signal, fix, join

Axis = tuple[str, int]
"""(name of a parameter or buffer, axis)."""

SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}
"""Functions and methods that add two signals."""

UNITWISE = {
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    nn.functional.dropout,
    nn.functional.gelu,
    nn.functional.leaky_relu,
    nn.functional.relu,
    nn.functional.silu,
    "contiguous",
    "relu",
    "relu_",
    "tanh",
}
"""Functions and methods of each value by itself."""

SPATIAL: dict[Any, int] = {
    nn.functional.adaptive_avg_pool2d: 2,
    nn.functional.avg_pool2d: 2,
    nn.functional.max_pool2d: 2,
}
"""Functions of the values of each unit in space -> the number of axes of space that they take."""

UNITWISE_MODULES = {
    nn.AlphaDropout, nn.CELU, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ELU, nn.GELU, nn.Hardshrink,
    nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LeakyReLU, nn.LogSigmoid, nn.LogSoftmax, nn.Mish,
    nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softmax, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh,
    nn.Tanhshrink, nn.Threshold,
}  # fmt: skip
SPATIAL_MODULES: dict[type[nn.Module], int] = {
    getattr(nn, f"{name}{space}d"): space
    for name in ("AdaptiveAvgPool", "AdaptiveMaxPool", "AvgPool", "MaxPool", "InstanceNorm", "ZeroPad")
    for space in (1, 2, 3)
}


@dataclass(frozen=True)
class PermutableUnits:
    """The axes of a network's tensors along which units lie.

    Attributes:
        axes: the segments of each axis, in order.
        groups: the groups that may be permuted, in order of first appearance.
        assumed: what the graph leaves open, and was taken for granted.
    """

    axes: dict[Axis, list[Segment]]
    groups: list[Group]
    assumed: tuple[str, ...] = ()

    def signature(self) -> list[tuple[Axis, list[tuple[int, int, bool]]]]:
        """Which axes hold which groups, equal for networks of one structure."""
        number: dict[Group, int] = {}
        return [
            (
                axis,
                [
                    (number.setdefault(s.group, len(number)), s.group.size * s.repeat, s.group.fixed)
                    for s in along
                ],
            )
            for axis, along in self.axes.items()
        ]


def units_of(model: nn.Module) -> PermutableUnits:
    """Finds the groups of units of a network of linear layers, convolutions and BatchNorm.

    The search follows sums (residual connections), elementwise functions, pooling, flattening, slices in space and
    padding of channels with zeros. It assumes that inputs are batches.

    Raises:
        ValueError: the network has another operation, or uses a tensor in two places; the message names it.
    """
    try:
        graph = fx.symbolic_trace(model).graph
    except Exception as error:
        raise ValueError(f"model: its modules cannot be followed: {error}") from error
    axes = _Axes()
    signals: dict[fx.Node, Signal | None] = {}
    modules = dict(model.named_modules())
    assumed: list[str] = []
    flattened: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op.startswith("call_"):
            module = modules[node.target] if node.op == "call_module" else None
            arriving = signals[node.all_input_nodes[0]] if node.all_input_nodes else None
            assumed += _assumptions(node, module, arriving)
            if _flattens(node, module) or (module is not None and node.all_input_nodes[0] in flattened):
                flattened.add(node)
        if node.op == "placeholder":
            # the inputs are not permuted
            signals[node] = None
        elif node.op == "output":
            signals[node] = None
            for source in node.all_input_nodes:
                fix(signals[source])
        elif node.op == "call_module":
            module = modules[node.target]
            source = node.all_input_nodes[0]
            signals[node] = _through(module, node.target, signals[source], axes, source in flattened)
        elif node.op in ("call_function", "call_method"):
            signals[node] = _combined(node, signals)
        else:
            raise ValueError(f"model: a parameter of its own ({node.target}) cannot be followed")
    leaves = {
        key: [Segment(leaf, segment.repeat) for segment in segments for leaf in segment.group.leaves()]
        for key, segments in axes.segments.items()
    }
    groups = dict.fromkeys(segment.group for segments in leaves.values() for segment in segments)
    movable = [group for group in groups if not group.fixed and group.size > 1]
    return PermutableUnits(leaves, movable, tuple(assumed))


def _assumptions(node: fx.Node, module: nn.Module | None, signal: Signal | None) -> list[str]:
    """What is taken for granted of the shape of activations, on which the place of the units depends."""
    if signal is None:
        return []
    if isinstance(module, nn.BatchNorm1d) and not signal.exact:
        return [
            f"the inputs of {node.target!r} (BatchNorm1d) are (samples, units), not (samples, positions, units)"
        ]
    if node.target == "squeeze" and signal.space and not signal.single:
        return [f"the axes that {str(node)!r} takes away are all but those of samples and units"]
    return []


class _Axes:
    """The segments of the axes of all tensors. Each segment has one place in the network."""

    def __init__(self) -> None:
        self.segments: dict[Axis, list[Segment]] = {}
        self._known: dict[tuple[int, int], tuple[str, list[Segment]]] = {}

    def add(self, name: str, axis: int, tensor: torch.Tensor, segments: list[Segment]) -> None:
        """Notes the segments of an axis.

        Raises:
            ValueError: the axis has other segments already, because the tensor is used twice, maybe by another name.
        """
        first, known = self._known.setdefault((tensor.data_ptr(), axis), (name, segments))
        if known != segments:
            raise ValueError(
                f"model: {name!r} has a second place in the network (the first as {first!r}), so that its units "
                "cannot be followed; give each place weights of its own"
            )
        self.segments[name, axis] = segments


def _through(
    module: nn.Module, name: str, signal: Signal | None, axes: _Axes, is_matrix: bool
) -> Signal | None:
    """The signal after a module; `is_matrix` says whether inputs of the network that reach it were flattened."""
    kind = f"{name!r} ({type(module).__name__})"
    names = {key for key, _ in module.named_parameters()}
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if getattr(module, "groups", 1) != 1:
            raise ValueError(f"model: the grouped convolution {name!r} cannot be followed")
        if not names <= {"weight", "bias"}:
            raise ValueError(f"model: {kind}, whose weights are made of others, cannot be followed")
        space = 0 if isinstance(module, nn.Linear) else module.weight.dim() - 2
        if signal is not None:
            if signal.space != space:
                raise ValueError(
                    f"model: {kind} over an axis that is not that of the units cannot be followed"
                )
            axes.add(name + ".weight", 1, module.weight, _entries(signal, module.weight.shape[1], kind))
        made = [Segment(Group(module.weight.shape[0]))]
        axes.add(name + ".weight", 0, module.weight, made)
        if module.bias is not None:
            axes.add(name + ".bias", 0, module.bias, made)
        exact = space > 0 or (is_matrix if signal is None else signal.exact)
        return Signal(made, space, exact=exact)
    if isinstance(module, _BatchNorm):
        if signal is None:
            raise ValueError(f"model: BatchNorm {name!r} of the inputs cannot be followed")
        entries = _entries(signal, module.num_features, kind)
        for key in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(module, key)
            if tensor is not None:
                axes.add(f"{name}.{key}", 0, tensor, entries)
        return signal
    if names or any(True for _ in module.buffers()):
        raise ValueError(f"model: {kind} cannot be followed")
    if signal is None or type(module) in UNITWISE_MODULES:
        return signal
    if SPATIAL_MODULES.get(type(module)) == signal.space:
        return replace(signal, single=_is_of_one(getattr(module, "output_size", None)))
    flattened = (
        _flattened(signal, module.start_dim, module.end_dim) if isinstance(module, nn.Flatten) else None
    )
    if flattened is None:
        raise ValueError(f"model: {kind} cannot be followed")
    return flattened


def _is_of_one(size: Any) -> bool:
    """Whether all axes of space get length 1."""
    return size == 1 or (isinstance(size, tuple | list) and len(size) > 0 and all(part == 1 for part in size))


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node makes a matrix (samples, features) of any inputs."""
    if module is not None:
        return isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
    start, end = _argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1)
    return FOLLOWED.get(node.target) is _flatten and (start, end) == (1, -1)


def _entries(signal: Signal, count: int, kind: str) -> list[Segment]:
    """The segments of an axis of `count` entries along which the units of a signal lie."""
    units = sum(leaf.size for segment in signal.segments for leaf in segment.group.leaves())
    repeat, rest = divmod(count, units)
    if rest or not (repeat == 1 or signal.flat):
        raise ValueError(
            f"model: {kind} takes {count} inputs where there are {units} units, and cannot be followed"
        )
    return [Segment(segment.group, repeat) for segment in signal.segments]


def _combined(node: fx.Node, signals: dict[fx.Node, Signal | None]) -> Signal | None:
    target = node.target
    arriving = [signals[source] for source in node.all_input_nodes]
    if all(signal is None for signal in arriving):
        return None
    if target in SUMS and len(arriving) == 2:
        return _sum(node, *arriving)
    signal = arriving[0]
    if signal is not None:
        if target in FOLLOWED:
            return FOLLOWED[target](node, signal)
        if target in UNITWISE:
            return signal
        if SPATIAL.get(target) == signal.space:
            adapts = target is nn.functional.adaptive_avg_pool2d
            return replace(signal, single=adapts and _is_of_one(_argument(node, 1, "output_size")))
    raise _refusal(node)


def _refusal(node: fx.Node) -> ValueError:
    target: Any = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", target)
    return ValueError(f"model: the operation {name!r} ({node}) cannot be followed as it is used here")


def _argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _sum(node: fx.Node, first: Signal | None, second: Signal | None) -> Signal | None:
    if first is None or second is None:
        fix(first)
        fix(second)
        return first or second
    if first.space != second.space:
        raise _refusal(node)
    join(first.segments, second.segments)
    single, exact = first.single and second.single, first.exact and second.exact
    return Signal(first.segments, first.space, first.flat and second.flat, single, exact)


def _selected(node: fx.Node, signal: Signal) -> Signal:
    """The signal after slices and positions in space were selected, for all units."""
    index = _argument(node, 1, "index")
    if not isinstance(index, tuple) or any(part != slice(None) for part in index[:2]):
        raise ValueError(f"model: a selection of units ({node}) cannot be followed")
    if len(index) - 2 > signal.space or not all(isinstance(part, slice | int) for part in index):
        raise _refusal(node)
    return replace(signal, space=signal.space - sum(isinstance(part, int) for part in index))


def _mean(node: fx.Node, signal: Signal) -> Signal:
    """The signal after a mean over axes of space."""
    dims = _argument(node, 1, "dim")
    dims = [dims] if isinstance(dims, int) else list(dims or [])
    if not dims or not all(dim % (2 + signal.space) >= 2 for dim in dims):
        raise _refusal(node)
    kept = _argument(node, 2, "keepdim", False)
    is_whole = len(dims) == signal.space
    return replace(signal, single=is_whole) if kept else replace(signal, space=signal.space - len(dims))


def _squeezed(node: fx.Node, signal: Signal) -> Signal:
    """The signal without axes of space, which all had length 1."""
    dim = _argument(node, 1, "dim")
    if dim is None:
        return replace(signal, space=0)
    if not isinstance(dim, int) or dim % (2 + signal.space) < 2:
        raise _refusal(node)
    return replace(signal, space=signal.space - 1)


def _flattened(signal: Signal, start: int, end: int) -> Signal | None:
    """The signal with some axes joined; None if samples are mixed, or axes are left behind those of the units."""
    last = 1 + signal.space
    if not (1 <= start <= last and end in (-1, last)):
        return None
    if start > 1:
        return replace(signal, space=start - 1)
    return Signal(signal.segments, flat=signal.flat or signal.space > 0, exact=True)


def _flatten(node: fx.Node, signal: Signal) -> Signal:
    found = _flattened(signal, _argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1))
    if found is None:
        raise _refusal(node)
    return found


def _padded(node: fx.Node, signal: Signal) -> Signal:
    """The signal with channels of zeros added. The zeros may be permuted like units where nothing is added to them."""
    amounts = [*_argument(node, 1, "pad")]
    beyond = amounts[2 * signal.space :]
    if not any(beyond):
        return replace(signal, single=False)
    # other modes repeat units, in their order
    mode = _argument(node, 2, "mode", "constant")
    if signal.flat or any(beyond[2:]) or mode != "constant":
        raise _refusal(node)
    before, after = ([Segment(Group(size))] if size else [] for size in beyond[:2])
    return replace(signal, segments=[*before, *signal.segments, *after])


FOLLOWED: dict[Any, Callable[[fx.Node, Signal], Signal]] = {
    operator.getitem: _selected,
    torch.flatten: _flatten,
    nn.functional.pad: _padded,
    "flatten": _flatten,
    "mean": _mean,
    "squeeze": _squeezed,
}
"""Functions and methods -> (node, signal that arrives) -> the signal after them."""
