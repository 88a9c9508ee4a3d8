"""Checks that outputs, loss and regularizer depend on no weights but those of the copy of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

OUTPUTS_OF_COPY = (
    "model: the forward of its copy still runs with {parameters}, so that derivatives in the copy's weights would be "
    "0; a forward that is replaced on an instance, a hook, or an attribute holds on to the model by a closure; define "
    "forward in the class, and give hooks the module that they are called with"
)
LOSS_OF_DETACHED_OUTPUTS = (
    "loss_fn: depends on {parameters}, not through the outputs alone, and would be measured as if they were constants; "
    "leave a penalty on the weights out of the loss, put parameters that the loss learns into the model, or freeze "
    "them by requires_grad_(False)"
)
REGULARIZER = (
    "regularizer: depends on {parameters}, not on the parameters that it is given alone; compute it from the mapping "
    "of names to parameters"
)


def check_dependence(results: object, original: nn.Module, message: str) -> None:
    """Checks that results depend on no parameter that requires a gradient.

    Args:
        results: tensors in any tree, recorded for differentiation: outputs of a copy whose parameters require no
            gradient, a loss of detached outputs, or a regularizer of such parameters.
        original: the model that was copied. It names the parameters in the error.
        message: one of the messages of this module, with the place {parameters}.

    Raises:
        ValueError: the results depend on such parameters; the message names them.
    """
    tensors = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
    if foreign := [leaf for leaf in _leaves_below(tensors) if isinstance(leaf, nn.Parameter)]:
        raise ValueError(message.format(parameters=_named(foreign, original)))


def _named(parameters: Sequence[Tensor], original: nn.Module) -> str:
    found = {id(each) for each in parameters}
    known = [name for name, parameter in original.named_parameters() if id(parameter) in found]
    if not known:
        return f"a parameter of shape {tuple(parameters[0].shape)} that is none of the model's"
    more = f" and {len(known) - 3} more" if len(known) > 3 else ""
    return f"the caller's own parameters {', '.join(map(repr, known[:3]))}{more}"


def _leaves_below(results: Sequence[Tensor]) -> Iterator[Tensor]:
    waiting: list[Any] = [result.grad_fn for result in results if result.grad_fn is not None]
    yield from (result for result in results if result.is_leaf and result.requires_grad)
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):
            yield node.variable
        following = {below for below, _ in node.next_functions if below is not None} - seen
        seen |= following
        waiting.extend(following)
