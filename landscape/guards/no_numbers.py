"""Says which weight or sample makes a loss or its derivatives no numbers."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from landscape.data.batches import rows_of, samples_in, tensors_in
from landscape.data.complex_numbers import as_real, is_whole
from landscape.data.counts import Pair
from landscape.data.random_state import borrowed_generators
from landscape.data.samples import Chunk
from landscape.guards.repeated_runs import HALF

Objective = Any
"""An Objective, which imports this file."""

P = ParamSpec("P")
Result = TypeVar("Result")

# keyed by what an Objective makes anew with its data
_said: weakref.WeakSet[object] = weakref.WeakSet()


def names_what_is_no_number(
    method: Callable[Concatenate[Objective, P], Result],
) -> Callable[Concatenate[Objective, P], Result]:
    """Makes a method of an Objective warn where its result at the model's own weights is no number."""

    @wraps(method)
    def watched(objective: Objective, *arguments: P.args, **options: P.kwargs) -> Result:
        found = method(objective, *arguments, **options)
        is_of_model = all(each is None for each in (*arguments, *options.values()))
        if is_of_model and not _is_number(found):
            warn_of_no_number(objective)
        return found

    return watched


def _is_number(found: object) -> bool:
    return are_numbers(found) if isinstance(found, tuple) else math.isfinite(found.loss)  # type: ignore[attr-defined]


def are_numbers(tensors: tuple[Tensor, ...]) -> bool:
    """Whether all entries of some tensors are finite, by their sums in float64."""
    return all(math.isfinite(tensor.detach().sum(dtype=torch.float64)) for tensor in tensors)


def warn_of_no_number(objective: Objective, *, of_product: bool = False) -> None:
    """Warns once of what makes the mean loss or its derivatives at the model's own weights no numbers.

    Args:
        objective: its result is no number.
        of_product: the result is a product with a matrix of second derivatives.

    Warns:
        UserWarning: names the parameter, the first sample, or the regularizer.
    """
    if objective.memory in _said or objective.ranks.share_vectors:
        return
    _said.add(objective.memory)
    cause = _of_weights(objective.tensors()) or _of_samples(objective)
    if cause is None and objective.ranks.count == 1:
        cause = _of_derivatives(objective, of_product)
    if cause is not None:
        warnings.warn(cause, stacklevel=4)


def _of_derivatives(objective: Objective, of_product: bool) -> str:
    """What is at fault where the losses of all samples are numbers."""
    too_large = f"{objective.dtype} may be too short for them: give the Objective dtype=torch.float32"
    undefined = (
        "a square root, a norm, a logarithm or a power has none at 0: add a small number to its argument"
    )
    reason = too_large if objective.dtype in HALF else undefined
    theta, penalty = objective.theta, objective.penalty
    if penalty and not are_numbers((penalty(theta),)):
        return "regularizer: its value is no number, and so is every loss; take weights at which it is one"
    if penalty and not are_numbers((penalty.gradient(theta),)):
        return f"regularizer: its value is a number, and its derivatives are not; {reason}"
    if penalty and of_product and not are_numbers((penalty.product(theta, torch.ones_like(theta)[:, None]),)):
        return f"regularizer: its gradient is a number, and its second derivatives are not; {reason}"
    if of_product and are_numbers(objective.value_and_gradient()):
        return f"model: its losses and their gradient are numbers, and second derivatives are not; {reason}"
    return f"model: its losses are numbers, and their derivatives are not; {reason}"


def _of_weights(tensors: dict[str, Tensor]) -> str | None:
    for name, tensor in tensors.items():
        if not is_whole(tensor) and (count := int((~as_real(tensor).isfinite()).sum())):
            return (
                f"model: {name!r} holds {count} of {tensor.numel()} numbers that are NaN or infinite, so that losses "
                "and curvature are no numbers; take the weights from before the training diverged"
            )
    return None


@torch.no_grad()
def _of_samples(objective: Objective) -> str | None:
    """The first sample whose loss is no number."""

    def is_no_number(pair: Pair) -> bool:
        return objective.counting.weight_of(pair) > 0 and not _loss_is_number(objective, pair)

    before = 0
    for chunk in objective.chunks:
        if is_no_number(chunk.pair):
            first, pair = _first_of(chunk, is_no_number)
            name = f"sample {before + first}" if samples_in(chunk.pair) is not None else f"batch {before}"
            return f"data: the loss of {name} is no number, and so is every mean: {_reason(objective, pair)}"
        before += chunk.samples
    return None


def _loss_is_number(objective: Objective, pair: Pair) -> bool:
    with borrowed_generators(objective.device), objective.without_gradients():
        chunk = Chunk(pair, 1.0, 1, objective.device)
        inputs, targets = chunk.read()
        loss = objective.loss_fn(objective.outputs(objective.theta, inputs), targets)
    return math.isfinite(loss.detach().float())


def _first_of(chunk: Chunk, is_no_number: Callable[[Pair], bool]) -> tuple[int, Pair]:
    """The place and the pair of the first such sample of a chunk, by halves; the chunk if it is not cut."""
    low, high = 0, samples_in(chunk.pair) or 1
    while high - low > 1:
        middle = (low + high) // 2
        if is_no_number(rows_of(chunk.pair, slice(low, middle))):
            high = middle
        else:
            low = middle
    whole = samples_in(chunk.pair) is None
    return low, chunk.pair if whole else rows_of(chunk.pair, slice(low, high))


def _reason(objective: Objective, pair: Pair) -> str:
    inputs, targets = pair
    if not _finite(tensors_in(inputs)):
        return "its inputs hold NaN or infinity; leave it out, or fill in what is missing"
    if not _finite(tensors_in(targets)):
        return "its targets hold NaN or infinity; leave it out, or mask it in the loss and give count="
    with borrowed_generators(objective.device), objective.without_gradients():
        outputs: Any = objective.outputs(objective.theta, Chunk(pair, 1.0, 1, objective.device).read()[0])
    if not _finite([leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]):
        return "its inputs are finite, and the model's outputs are not; measure in a longer dtype (dtype=)"
    return "the model's outputs are finite, and their loss is not, such as the logarithm of 0"


def _finite(tensors: list[Tensor]) -> bool:
    return all(
        bool(as_real(each).isfinite().all())
        for each in tensors
        if each.layout == torch.strided and not is_whole(each)
    )
