"""Products with a Hessian or Gauss-Newton matrix, split into a part of the weights and a part of the vector.

At fixed weights and data the product is linear in the vector. So all activations and their gradients can be computed
once and kept, and each further product costs only the operations that depend on the vector. The operations of one
product are traced into a graph, which is tidied and cut into two parts.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from landscape.fx.plain_formulas import (
    as_if_compiled,
    twice_differentiable,
    without_checks_of_values,
    without_cudnn_norms,
)
from landscape.fx.sources import sources_forgotten
from landscape.fx.threads import TRACING
from landscape.fx.tracing import traced

Outputs = Callable[[Tensor, Any], Tensor]
"""(theta, inputs) -> the model's outputs; the inputs are tensors in any tree of tuples, lists and dicts."""

Product = Callable[[Tensor, Tensor, Any, Any], Tensor]
"""(theta, vector, inputs, targets) -> matrix times vector, (n,)."""

aten = torch.ops.aten


@dataclass(frozen=True)
class Linearized:
    """A product at fixed shapes, cut into two parts.

    Attributes:
        primal: (theta, inputs, targets) -> the residuals, a tuple of all values that the tangent part needs.
        tangent: (vector, *residuals) -> the product.
    """

    primal: Callable[[Tensor, Any, Any], tuple[Tensor, ...]]
    tangent: Callable[..., Tensor]


@sources_forgotten()
def linearized(
    product: Callable[[Outputs], Product], outputs: Outputs, theta: Tensor, inputs: Any, targets: Any
) -> Linearized:
    """Traces a product once. The result is valid for all weights and data of the same shapes.

    Args:
        product: outputs -> the product. The function must not branch on values of tensors.
        outputs: (theta, inputs) -> the model's outputs. The function must not branch on values of tensors.
        theta: example weights (n,).
        inputs: the inputs of an example chunk, tensors in any tree.
        targets: the targets of the example chunk, tensors in any tree.

    Raises:
        RuntimeError: the model or its loss cannot be traced, or shapes depend on the data.
    """
    # tensors have shapes but no values: nothing is computed, and `make_fx` need not make fake tensors from real ones
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    theta, inputs, targets = tree_map(fakes.from_tensor, (theta, inputs, targets))
    leaves, form = tree_flatten((inputs, targets))
    input_leaves, input_form = tree_flatten(inputs)
    try:
        with (
            TRACING,
            torch.no_grad(),
            twice_differentiable(),
            without_cudnn_norms(),
            without_checks_of_values(),
            as_if_compiled(),
            fakes,
        ):
            # an empty table of decompositions: without a table, torch 2.14 leaves out detach(), which the derivatives
            # of the forward pass need
            forward = traced(
                lambda theta, *leaves: outputs(theta, tree_unflatten(leaves, input_form)),
                theta,
                *input_leaves,
                decomposition_table={},
            )
            fold_batch_norm(forward)
            of_chunk = product(lambda theta, inputs: forward(theta, *tree_leaves(inputs)))
            joint = traced(
                lambda theta, vector, *leaves: of_chunk(theta, vector, *tree_unflatten(leaves, form)),
                theta,
                theta.clone(),
                *leaves,
            )
    except DynamicOutputShapeException as error:
        raise RuntimeError(f"the size of the result of {error.func} depends on the data") from error
    check_that_shapes_are_fixed(joint)
    tidy(joint)
    return _cut(joint)


def check_that_shapes_are_fixed(module: fx.GraphModule) -> None:
    """Checks that no shape depends on values, such as that of a selection by a mask. A trace would freeze the shape.

    Raises:
        RuntimeError: a shape depends on values.
    """
    for node in module.graph.find_nodes(op="call_function", target=aten.index.Tensor):
        if any(index is not None and index.meta["val"].dtype == torch.bool for index in node.args[1]):
            raise RuntimeError("the size of a selection by a mask depends on the data")
    for node in module.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if node.target is not aten.index.Tensor and torch.Tag.dynamic_output_shape in tags:
            raise RuntimeError(f"the size of the result of {node.target} depends on the data")


def fold_batch_norm(module: fx.GraphModule) -> None:
    """Merges each BatchNorm in evaluation mode into the convolution before it, in a graph of a forward pass.

    With stored statistics BatchNorm is an affine map of each channel, so that conv(x, W) a + c = conv(x, W a) + c. The
    merged graph is the same function without the passes of BatchNorm over the activations.
    """
    graph = module.graph
    for norm in graph.find_nodes(op="call_function", target=aten.native_batch_norm.default):
        arguments: Any = norm.args
        convolution, weight, bias, mean, variance, training, _, eps = arguments
        matches = (
            not training
            and convolution.target is aten.convolution.default
            and len(convolution.users) == 1
            and not convolution.args[6]
            and [user.args[1] for user in norm.users if user.users] == [0]
        )
        if not matches:
            continue
        inputs, kernel, shift, *geometry = convolution.args
        with graph.inserting_before(norm):
            call = graph.call_function
            scale = call(aten.rsqrt.default, (call(aten.add.Scalar, (variance, eps)),))
            if weight is not None:
                scale = call(aten.mul.Tensor, (scale, weight))
            center = mean if shift is None else call(aten.sub.Tensor, (mean, shift))
            offset = call(aten.neg.default, (call(aten.mul.Tensor, (center, scale)),))
            if bias is not None:
                offset = call(aten.add.Tensor, (offset, bias))
            per_filter = [-1] + [1] * (kernel.meta["val"].ndim - 1)
            scaled = call(aten.mul.Tensor, (kernel, call(aten.view.default, (scale, per_filter))))
            folded = call(aten.convolution.default, (inputs, scaled, offset, *geometry))
        folded.meta = dict(convolution.meta)
        for user in list(norm.users):
            if user.args[1] == 0:
                user.replace_all_uses_with(folded)
    graph.eliminate_dead_code()
    module.recompile()


def tidy(module: fx.GraphModule) -> None:
    """Removes copies, additions of zero and repeated operations from a graph of pure operations.

    Forward-mode differentiation copies more than needed, and carries the zero tangents of the inputs through the first
    layer. Values stay the same, but memory layouts may change, because views become reshapes. If operations on raw
    strides are left, only nodes whose removal keeps the layout are removed.
    """
    graph = module.graph
    for node in graph.nodes:
        _without_strides(node)
    strict = any(node.target in RAW_STRIDES for node in graph.nodes)
    first: dict[Any, fx.Node] = {}
    zeros: set[fx.Node] = set()
    for node in list(graph.nodes):
        if node.op not in ("call_function", "get_attr"):
            continue
        same = _repeated(node, strict) or _other_summand(node, zeros, strict)
        same = same or first.setdefault(_expression(node), node)
        if same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
        elif _is_zero(node, zeros):
            zeros.add(node)
    graph.eliminate_dead_code()
    module.recompile()


PHYSICAL: dict[Any, Any] = {
    aten._conj.default: aten.conj_physical.default,
    aten._neg_view.default: aten.neg.default,
}
"""Lazy operations, which mark a tensor, and those that compute the same. A trace cannot tell marked tensors."""
VIEWS = {aten.view.default, aten._unsafe_view.default}
RAW_STRIDES = {aten.as_strided.default, aten.as_strided_scatter.default}


def _without_strides(node: fx.Node) -> None:
    """Replaces a view, and an operation on strides that is the same as a view, by a reshape; a lazy operation."""
    arguments: Any = node.args
    node.target = PHYSICAL.get(node.target, node.target)
    if node.target in VIEWS:
        node.target = aten.reshape.default
    elif node.target is aten.as_strided.default:
        source, size, stride, *offset = arguments
        if _is_dense(source.meta["val"], size, stride) and not any(offset):
            node.target, node.args = aten.reshape.default, (source, size)
    elif node.target is aten.as_strided_scatter.default:
        base, source, size, stride, *offset = arguments
        covers = base.meta["val"].numel() == source.meta["val"].numel()
        if covers and _is_dense(source.meta["val"], size, stride) and not any(offset):
            node.target, node.args = aten.reshape.default, (source, list(base.meta["val"].shape))


def _is_dense(value: Tensor, size: list[int], stride: list[int]) -> bool:
    """Whether a contiguous tensor, read with this size and these strides, gives all its values in order."""
    rows = torch.empty(size, device="meta").stride()
    in_order = all(length == 1 or a == b for length, a, b in zip(size, stride, rows, strict=True))
    whole = value.storage_offset() == 0 and value.numel() == math.prod(size)
    return in_order and whole and value.is_contiguous()


REPEATING = {
    aten._to_copy.default,
    aten.alias.default,
    aten.clone.default,
    aten.copy.default,
    aten.expand.default,
    aten.reshape.default,
}


def _repeated(node: fx.Node, strict: bool) -> fx.Node | None:
    """The argument that the node only copies; None if it does more."""
    if node.target not in REPEATING:
        return None
    source: Any = node.args[1 if node.target is aten.copy.default else 0]
    return source if _alike(source, node, strict) else None


def _other_summand(node: fx.Node, zeros: set[fx.Node], strict: bool) -> fx.Node | None:
    """The other summand of a sum in which one summand is zero."""
    if node.target is not aten.add.Tensor or node.kwargs:
        return None
    summands: Any = node.args
    left, right = summands
    for zero, other in ((left, right), (right, left)):
        if zero in zeros and _alike(other, node, strict):
            return other
    return None


def _alike(source: Any, node: fx.Node, strict: bool) -> bool:
    """Whether one tensor can replace the other: equal shape and dtype, and if `strict` equal layout."""
    if not isinstance(source, fx.Node) or "val" not in source.meta:
        return False
    old, new = source.meta["val"], node.meta["val"]
    same = (old.shape, old.dtype, old.device) == (new.shape, new.dtype, new.device)
    return same and not (strict and old.stride() != new.stride())


def _expression(node: fx.Node) -> Any:
    """A key that is equal for nodes that compute the same value."""
    arguments = fx.node.map_aggregate(
        (node.args, node.kwargs), lambda a: a if isinstance(a, fx.Node) else repr(a)
    )
    return node.op, node.target, repr(arguments)


LINEAR_IN_FIRST = {
    aten.alias.default,
    aten.expand.default,
    aten.threshold_backward.default,
    aten.t.default,
    aten.transpose.int,
    aten.reshape.default,
    operator.getitem,
}
BILINEAR = {aten.bmm.default, aten.mm.default, aten.mul.Tensor}


def _is_zero(node: fx.Node, zeros: set[fx.Node]) -> bool:
    """Whether all values are zero for all finite data."""
    if node.target in (aten.zeros.default, aten.zeros_like.default):
        return True
    if node.target in LINEAR_IN_FIRST:
        return node.args[0] in zeros
    if node.target in BILINEAR:
        return any(factor in zeros for factor in node.args)
    if node.target is aten.convolution.default:
        inputs, kernel, bias = node.args[:3]
        return bias is None and (inputs in zeros or kernel in zeros)
    if node.target is aten.convolution_backward.default:
        gradient, inputs, *_, wanted = node.args
        return gradient in zeros or (wanted == [False, True, False] and inputs in zeros)
    return False


def _cut(joint: fx.GraphModule) -> Linearized:
    """Cuts a graph of (theta, vector, leaves of inputs and targets) where the vector first enters."""
    vector = joint.graph.find_nodes(op="placeholder")[1]
    touched = {vector}
    for node in joint.graph.nodes:
        if not touched.isdisjoint(node.all_input_nodes):
            touched.add(node)
    (output,) = joint.graph.find_nodes(op="output")
    kept = list(
        dict.fromkeys(
            source
            for node in joint.graph.nodes
            if node in touched | {output}
            for source in node.all_input_nodes
            if source not in touched
        )
    )

    primal, tangent = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in joint.graph.nodes:
        if node not in touched and node is not output:
            copies[node] = primal.node_copy(node, copies.__getitem__)
    primal.output(tuple(copies[node] for node in kept))
    primal.eliminate_dead_code()

    copies = {node: tangent.placeholder(node.name) for node in [vector, *kept]}
    for node in joint.graph.nodes:
        if node in touched and node is not vector and node is not output:
            copies[node] = tangent.node_copy(node, copies.__getitem__)
    (product,) = output.all_input_nodes
    tangent.output(copies[product])
    first = fx.GraphModule(joint, primal)
    return Linearized(
        lambda theta, inputs, targets: first(theta, *tree_leaves((inputs, targets))),
        fx.GraphModule(joint, tangent),
    )
