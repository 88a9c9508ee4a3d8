"""A model's forward pass as a graph, cut behind the first layers, for many evaluations near the same weights.

The outputs are traced once, and the graph is made cheaper without changing its function. BatchNorm is merged into the
convolution before it. On the CPU, max pooling becomes comparisons of slices. The first linear layers are linear in the
weights, so they are computed once for each direction instead of once for each point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from landscape.fx.linearize import Outputs, check_that_shapes_are_fixed, fold_batch_norm
from landscape.fx.plain_formulas import as_if_compiled, without_cudnn_norms
from landscape.fx.sources import sources_forgotten
from landscape.fx.threads import TRACING
from landscape.fx.tracing import traced

aten = torch.ops.aten

WIDE = 32
"""A layer with at least this number of inputs costs more than a combination of its outputs."""


@dataclass(frozen=True)
class Forward:
    """A forward pass at fixed shapes, cut into two parts.

    Attributes:
        first: (theta, inputs) -> outputs of the first linear layers, a tuple. It is linear in theta.
        rest: (theta, inputs, *first) -> the model's outputs.
    """

    first: Callable[[Tensor, Any], tuple[Tensor, ...]]
    rest: Callable[..., Tensor]


@sources_forgotten()
def traced_forward(outputs: Outputs, theta: Tensor, inputs: Any) -> Forward:
    """Traces a model's outputs once. The result is valid for all weights and inputs of the same shapes.

    Args:
        outputs: (theta, inputs) -> the model's outputs. The function must not branch on values of tensors.
        theta: example weights (n,).
        inputs: an example chunk, of tensors in any tree, in the memory layout of later chunks.

    Raises:
        RuntimeError: the model cannot be traced, or shapes depend on the data.
    """
    leaves, form = tree_flatten(inputs)
    with TRACING, torch.no_grad(), without_cudnn_norms(), as_if_compiled():
        module = traced(lambda theta, *leaves: outputs(theta, tree_unflatten(leaves, form)), theta, *leaves)
    check_that_shapes_are_fixed(module)
    fold_batch_norm(module)
    if theta.device.type == "cpu":
        _pool_by_comparison(module.graph)
    return _cut(module)


def _pool_by_comparison(graph: fx.Graph) -> None:
    """Replaces each plain max pooling by the maximum of some slices, which is several times faster on the CPU."""
    for pool in graph.find_nodes(op="call_function", target=aten.max_pool2d_with_indices.default):
        arguments: Any = pool.args
        values, kernel, stride, *options = arguments
        is_plain = len(set(kernel)) == 1 and list(stride) == list(kernel) and kernel[0] <= 3
        users = list(pool.users)
        if not is_plain or options or [user.args[1] for user in users] != [0]:
            continue
        with graph.inserting_before(pool):
            for dim, size in ((2, kernel[0]), (3, kernel[0])):
                end = values.meta["val"].shape[dim] // size * size
                slices = [
                    graph.call_function(aten.slice.Tensor, (values, dim, start, end, size))
                    for start in range(size)
                ]
                largest = slices[0]
                for other in slices[1:]:
                    largest = graph.call_function(aten.maximum.default, (largest, other))
                largest.meta["val"] = slices[0].meta["val"] = values.meta["val"].narrow(dim, 0, end // size)
                values = largest
        users[0].replace_all_uses_with(values)
    graph.eliminate_dead_code()


def _rectify_in_place(graph: fx.Graph) -> None:
    """Lets a ReLU overwrite its input, if nothing else reads the input."""
    fresh = {aten.add.Tensor, aten.addmm.default, aten.convolution.default, aten.mm.default}
    for node in graph.find_nodes(op="call_function", target=aten.relu.default):
        source: Any = node.args[0]
        if source.target in fresh and len(source.users) == 1:
            node.target = aten.relu_.default


REARRANGING = {
    aten.split_with_sizes.default,
    aten.view.default,
    aten.reshape.default,
    aten.t.default,
    aten.transpose.int,
    aten.permute.default,
}


def _cut(module: fx.GraphModule) -> Forward:
    """Cuts a graph of (theta, leaves of inputs) behind each linear layer whose inputs depend on no weight."""
    graph = module.graph
    theta, *inputs = graph.find_nodes(op="placeholder")
    of_data, of_weights = set(inputs), {theta}
    layers = []
    for node in graph.nodes:
        sources = set(node.all_input_nodes)
        is_getitem = node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"
        if node.op == "get_attr" or (node.op == "call_function" and sources and sources <= of_data):
            of_data.add(node)
        elif sources and sources <= of_weights and (is_getitem or node.target in REARRANGING):
            of_weights.add(node)
        elif node.target in (aten.addmm.default, aten.mm.default) and not node.kwargs:
            *bias, data, weight = node.args
            is_wide = weight in of_weights and weight.meta["val"].shape[0] >= WIDE
            if is_wide and data in of_data and set(bias) <= of_weights:
                layers.append(node)

    first, rest = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op != "output":
            copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(tuple(copies[layer] for layer in layers))
    # placeholders stay, because all of them are arguments, used or not
    first.eliminate_dead_code()

    copies = {node: rest.placeholder(node.name) for node in (theta, *inputs)}
    copies |= {layer: rest.placeholder(layer.name) for layer in layers}
    for node in graph.nodes:
        if node not in copies:
            copies[node] = rest.node_copy(node, copies.__getitem__)
    rest.eliminate_dead_code()
    # only now: an operation that overwrites its input is never removed as dead, and must not overwrite a first layer
    _rectify_in_place(rest)
    before, after = fx.GraphModule(module, first), fx.GraphModule(module, rest)
    return Forward(
        lambda theta, inputs: before(theta, *tree_leaves(inputs)),
        lambda theta, inputs, *layers: after(theta, *tree_leaves(inputs), *layers),
    )
