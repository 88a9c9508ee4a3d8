"""Derivatives that are zero if nothing depends on the variable, and a check that torch records them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils.hooks import RemovableHandle


def derivative(
    of: Tensor, by: Tensor, *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """The gradient of the scalar `of` with respect to `by`; zero if `of` does not depend on `by`."""
    if not of.requires_grad:
        return torch.zeros_like(by)
    (result,) = torch.autograd.grad(
        of,
        by,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return result


def gradient_edges(of: Tensor, by: Sequence[Tensor]) -> list[GradientEdge | None]:
    """Where the gradient of the scalar `of` with respect to each of `by` lies in torch's graph; None if it is constant.

    A second derivative needs no more of the gradient. Its values are given up one tensor after the other, unless the
    graph needs them.
    """
    edges: list[GradientEdge | None] = [None] * len(by)

    def note(place: int, gradient: Tensor | None) -> Tensor | None:
        if gradient is None or not gradient.requires_grad:
            return gradient
        edges[place] = get_gradient_edge(gradient)
        # torch would hold the values until the last gradient is there
        return gradient.new_zeros(()).expand_as(gradient)

    hooks = [variable.register_hook(partial(note, place)) for place, variable in enumerate(by)]
    # a hook that is left would keep the graph, and the graph the variable
    with _removed_at_the_end(hooks):
        torch.autograd.grad(of, by, create_graph=True, allow_unused=True)
    return edges


@contextmanager
def _removed_at_the_end(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def add_derivative(
    of: Sequence[Tensor | GradientEdge | None],
    by: Sequence[Tensor],
    totals: Sequence[Tensor],
    *,
    along: Sequence[Tensor] | None = None,
    retain_graph: bool = False,
) -> None:
    """Adds the gradient of `of` to `totals`, one tensor after the other, so that no second gradient is held.

    Args:
        of: scalars, which are summed; or, with `along`, tensors of any shape or their places in torch's graph. They
            may depend on none of the variables; None stands for a constant.
        by: variables, which are leaves.
        totals: of the variables' shapes, in their dtype, or in a longer one, in which many short ones add up.
        along: of the shapes of `of`: the gradient of the inner product with these is meant.
        retain_graph: another derivative will be taken.
    """
    kept = [place for place, part in enumerate(of) if not is_constant(part)]
    if not kept:
        return
    for variable, total in zip(by, totals, strict=True):
        # torch takes no sum in another dtype than the variable's
        variable.grad = total if total.dtype == variable.dtype else None
    hooks = list(_hooks_that_add(_starts([of[place] for place in kept]), by, totals))
    try:
        with _removed_at_the_end(hooks):
            torch.autograd.backward(
                [of[place] for place in kept],  # type: ignore[arg-type]
                None if along is None else [along[place] for place in kept],
                inputs=list(by),
                retain_graph=retain_graph,
            )
        for variable, total in zip(by, totals, strict=True):
            # torch adds in place, but for gradients of other kinds, such as sparse ones
            if variable.grad is not None and variable.grad is not total:
                (total.copy_ if total.dtype == variable.dtype else total.add_)(variable.grad)
    finally:
        for variable in by:
            variable.grad = None


def _starts(of: Iterable[Tensor | GradientEdge | None]) -> list[Node]:
    nodes = [part.grad_fn if isinstance(part, Tensor) else part.node for part in of if part is not None]
    return [node for node in nodes if node is not None]


def _hooks_that_add(
    starts: Sequence[Node], by: Sequence[Tensor], totals: Sequence[Tensor]
) -> Iterator[RemovableHandle]:
    """Makes each operation add its part of a gradient to the total at once.

    Torch alone holds the parts until the last one is there: those of a weight that two layers share, and in a second
    derivative those of all weights.
    """
    total_of = dict(zip(map(id, by), zip(by, totals, strict=True), strict=True))

    def add(
        targets: dict[int, _Target], parts: tuple[Tensor | None, ...], _: Any
    ) -> tuple[Tensor | None, ...]:
        return tuple(
            None if place in targets and targets[place].adds(part) else part
            for place, part in enumerate(parts)
        )

    for node in nodes_below(starts):
        if type(node).__name__ not in VIEWS:
            found = [_Target.of(below, total_of) for below, _ in node.next_functions]
            targets = {place: target for place, target in enumerate(found) if target is not None}
            if targets:
                yield node.register_hook(partial(add, targets))


VIEWS = {
    *("AliasBackward0", "TBackward0", "TransposeBackward0", "PermuteBackward0", "ViewBackward0"),
    *("UnsafeViewBackward0", "ReshapeAliasBackward0", "UnsqueezeBackward0", "SqueezeBackward1"),
}
"""Operations that only look at a weight in another shape, such as the transpose in a linear layer."""


@dataclass(frozen=True)
class _Target:
    """Where a part of a gradient belongs: through views, the innermost last, into the total of a variable."""

    views: tuple[Any, ...]
    variable: Tensor
    total: Tensor

    @classmethod
    def of(cls, node: Node | None, total_of: Mapping[int, tuple[Tensor, Tensor]]) -> _Target | None:
        """The target of what flows into a node; None if this is no view of a variable."""
        views: list[Node] = []
        while node is not None and type(node).__name__ in VIEWS:
            views.append(node)
            node = node.next_functions[0][0]
        found = total_of.get(id(getattr(node, "variable", None)))
        return None if found is None else cls(tuple(views), *found)

    def adds(self, part: Tensor | None) -> bool:
        """Adds a part, unless torch would have to change its form before: sum a broadcast axis, cast, make dense."""
        if part is None or part.layout != self.total.layout or part.dtype != self.variable.dtype:
            return False
        if part.numel() != self.total.numel():
            return False
        for view in self.views:
            part = view(part)
        if part.shape != self.total.shape:
            return False
        self.total.add_(part)
        return True


def nodes_below(starts: Iterable[Node]) -> Iterator[Node]:
    """The nodes of torch's graph from which these are computed, and these themselves."""
    waiting = list(starts)
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        following = {below for below, _ in node.next_functions if below is not None} - seen
        seen |= following
        waiting.extend(following)


def padding_rows(of: Tensor, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, int]]:
    """Names of weights of embeddings from which a tensor is computed, and the row that is a constant to torch.

    Args:
        of: not computed inside `twice_differentiable`, where embeddings are other operations.
        weights: by name; leaves, or views of one.
    """
    names = {get_gradient_edge(weight).node: name for name, weight in weights.items()}
    for node in nodes_below([of.grad_fn] if of.grad_fn is not None else []):
        row = getattr(node, "_saved_padding_idx", None)
        below = node.next_functions[0][0] if row is not None else None
        while below is not None and below not in names:
            # a weight that is cast or scaled on the way
            below = next((each for each, _ in below.next_functions if each is not None), None)
        if below is not None and row is not None and 0 <= row < len(weights[names[below]]):
            yield names[below], row


def is_constant(part: Tensor | GradientEdge | None) -> bool:
    """Whether a tensor, or the place of one in torch's graph, depends on no variable."""
    return part is None or (isinstance(part, Tensor) and not part.requires_grad)


def check_that_gradients_are_recorded(*tensors: Tensor) -> None:
    """Checks that torch records gradients. In inference mode a derivative would silently be zero.

    Raises:
        RuntimeError: `torch.inference_mode()` is on, or a tensor was made there.
    """
    if torch.is_inference_mode_enabled() or any(tensor.is_inference() for tensor in tensors):
        raise RuntimeError(
            "torch.inference_mode: gradients and products with the Hessian cannot be had there, nor for a model or "
            "data made there; make the Objective and measure outside of it, or use torch.no_grad() instead"
        )
