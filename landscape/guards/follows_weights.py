"""A check that the measured copy of a model follows its weights as the model itself would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from landscape.data.complex_numbers import cast, is_whole
from landscape.guards.repeated_runs import is_inexact, share_apart
from landscape.model.fully_sharded import is_sharded
from landscape.model.long_vectors import PIECE, norm
from landscape.model.padded_places import compute_padded_places
from landscape.model.shared_memory import copy_with_shared_memory
from landscape.model.weights import ParameterLayout, with_weights

MOVED = 0.1
"""Distance of the other weights from the model's own, relative to these. Sizes alone would not do: normalized weights
have no size."""

ALLOWED = {torch.float64: 1e-7, torch.float32: 1e-3}
"""Share by which the outputs may differ, of the shortest dtype; 0.05 in half precision. Both passes round alike."""

DOES_NOT_FOLLOW = (
    "model: with other weights its outputs are not those of the model that was given these weights before eval(): "
    "they differ by {share:.2g} of the largest, so that losses at other weights and derivatives would be wrong; "
    "either its eval() merges or folds weights, as LoRA layers do (turn that off, such as by merge_weights=False, or "
    "merge for good and measure the merged model), or its forward takes weights from where no other weights can be "
    "put: from a cache, from a list, dict, function or object that keeps them, or from an attribute or buffer that "
    "shares their memory (let forward take them from their module in each pass)"
)


@torch.inference_mode(False)
@torch.no_grad()
def check_that_copy_follows_its_weights(
    original: nn.Module,
    measured: nn.Module,
    layout: ParameterLayout,
    theta: Tensor,
    copy_at: Callable[[Tensor], Any],
    run: Callable[[nn.Module], Any],
) -> None:
    """Compares outputs of the measured copy at other weights with a new copy that gets them before `eval()`.

    There is no comparison for a model under FSDP2, and for one that fails at the other weights. One copy of the model
    and one vector as long as the weights are held at a time, which is no more than the other checks hold.

    Args:
        original: the caller's model. It is copied and stays as it is.
        measured: the measured copy.
        layout: of the variables.
        theta: the variables (n,), in the dtype of the measured copy.
        copy_at: weights (n,) -> outputs of the measured copy.
        run: model -> outputs.

    Raises:
        ValueError: the outputs differ.
    """
    if is_sharded(original):
        return
    try:
        moved = copy_with_shared_memory(original).train()
        compute_padded_places(moved)
        _move([moved.get_parameter(name) for name in layout.names])
        weights = torch.empty_like(theta)
        for name, part in layout.unflatten(weights).items():
            part.copy_(moved.get_parameter(name))
        shortest = _shortest(moved)
        right = with_weights(cast(moved.eval(), theta.dtype if _was_cast(moved, measured) else None), {}, run)
        # frees the memory of the copy
        del moved
        found = copy_at(weights)
    except Exception:
        # some models have no training mode, or no outputs at weights that are not their own
        return
    share = share_apart(
        *([leaf for leaf in tree_leaves(each) if is_inexact(leaf)] for each in (found, right))
    )
    if share > ALLOWED.get(shortest, 0.05):
        raise ValueError(DOES_NOT_FOLLOW.format(share=share))


def _move(parameters: list[nn.Parameter]) -> None:
    """Moves weights by random signs, in place and some at a time."""
    generator = torch.Generator().manual_seed(0)
    entries = sum(parameter.numel() for parameter in parameters)
    total = sum(norm(parameter.detach().flatten()) ** 2 for parameter in parameters)
    # weights of 0 must move too, such as the factor of a LoRA layer that begins with 0
    size = (total / entries) ** 0.5 or 1.0
    for parameter in parameters:
        whole = parameter.view(-1) if parameter.is_contiguous() else parameter
        for piece in whole.split(PIECE):
            signs = torch.randint(2, piece.shape, generator=generator, dtype=torch.int8, device="cpu")
            signs.mul_(2).sub_(1)
            piece.add_(signs.to(piece) * (piece.abs() + size), alpha=MOVED)


def _shortest(model: nn.Module) -> torch.dtype:
    """The dtype of the model's parameters with the fewest digits."""
    dtypes = (each.dtype for each in model.parameters() if not is_whole(each))
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def _was_cast(moved: nn.Module, measured: nn.Module) -> bool:
    """Whether the caller chose another dtype for the measured copy."""
    return any(
        one.dtype != other.dtype
        for one, other in zip(moved.parameters(), measured.parameters(), strict=False)
    )
