"""Checks of a model: real weights, and a forward pass that does not write to them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

ALTERED = 2.0
"""Weights of twice their size lie outside the bounds that trained weights keep, such as an Embedding's `max_norm`."""

NO_DERIVATIVES = (
    "model: its forward writes to its weights (as an Embedding with max_norm does), so that torch's derivatives are "
    "not those of the loss; losses and surfaces can be had; for derivatives, bound the weights once before the "
    "Objective is made, and take the bound out of forward (max_norm=None)"
)


def check_that_weights_are_real(model: nn.Module) -> None:
    """Checks that no parameter is complex.

    Raises:
        ValueError: naming one that is.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_complex():
            raise ValueError(
                f"model: its parameter {name!r} is complex ({parameter.dtype}), and one vector of real weights cannot "
                "hold it; keep a real parameter of shape (..., 2), and make it complex in forward by "
                "torch.view_as_complex"
            )


@torch.inference_mode(False)
@torch.no_grad()
def writes_to_its_weights(outputs_of: Callable[[Tensor], object], theta: Tensor) -> bool:
    """Whether a forward pass writes to the weights that it is given.

    Args:
        outputs_of: runs the model with weights (n,).
        theta: weights (n,).
    """
    for weights in (theta.clone(), theta * ALTERED):
        # a value that is written again as it was shows in the version, a write through `.data` in the values
        version, before = weights._version, weights.clone()
        outputs_of(weights)
        if weights._version != version or not torch.equal(weights.nan_to_num(), before.nan_to_num()):
            return True
    return False
