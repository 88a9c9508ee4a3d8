"""The nodes of torch's graph from which a loss is computed, and those that run a backward pass of their own.

Reentrant checkpoints are such: their backward computes outputs anew and calls `torch.autograd.backward`, which fills
`.grad` of the weights inside. To `torch.autograd.grad` these weights are no part of the graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.autograd.graph import Node

from ncsam.methods.called_objects import called_by

NAMES_OF_A_PASS = {"enable_grad", "backward"}
"""What the backward of an autograd Function names if it computes outputs anew and calls a backward pass."""

REENTRANT = (
    "model: its checkpoints must be called with use_reentrant=False, or the weights inside get no gradient; for a "
    "model of transformers give gradient_checkpointing_kwargs={'use_reentrant': False}; in the place of another "
    "package's checkpoint take torch's"
)


def nodes_of(loss: Tensor) -> Iterator[Node]:
    """The nodes of the graph of a loss, each once."""
    waiting = [loss.grad_fn]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        yield node
        following = {after for after, _ in node.next_functions} - seen
        seen |= following
        waiting += following


def check_that_none_is_lost(loss: Tensor, found: Sequence[Tensor | None]) -> None:
    """Checks that weights without a gradient are not those of reentrant checkpoints. Only then is the graph walked.

    Args:
        loss: a scalar with its graph; a backward pass may have run through it.
        found: what `torch.autograd.grad` gives for each trainable parameter.

    Raises:
        ValueError: a weight has no gradient, and a part of the model runs a backward pass of its own.
    """
    if any(part is None for part in found) and any(map(_runs_a_backward_pass, nodes_of(loss))):
        raise ValueError(REENTRANT)


def check_that_no_checkpoint_is_reentrant(loss: Tensor, model: nn.Module) -> None:
    """Checks that no part that runs a backward pass of its own holds trainable weights of the model.

    A weight that is used outside of such a part too has a gradient, which lacks what the part would add. This walks the
    whole graph.

    Raises:
        ValueError: a part does.
    """
    trained = {id(weight) for weight in model.parameters() if weight.requires_grad}
    for node in filter(_runs_a_backward_pass, nodes_of(loss)):
        held = [module for value in vars(node).values() for module in called_by(value)]
        if any(id(weight) in trained for module in held for weight in module.parameters()):
            raise ValueError(REENTRANT)


def _runs_a_backward_pass(node: Node) -> bool:
    function = getattr(node, "_forward_cls", None)
    code = getattr(inspect.unwrap(function.backward), "__code__", None) if function is not None else None
    return code is not None and set(code.co_names) >= NAMES_OF_A_PASS
