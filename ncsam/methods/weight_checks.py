"""Checks of weights that a method moves by a perturbation and puts back."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize


def check_that_it_can_be_written(name: str, parameter: nn.Parameter) -> None:
    """Raises ValueError for a parameter that no perturbation can be added to.

    Several entries of it are one place in memory, as in an expanded tensor, or it waits for a first pass to get its
    shape.
    """
    if is_lazy(parameter):
        raise ValueError(
            f"model: the parameter {name!r} of a lazy layer has no shape yet, so that no perturbation can be added to "
            "it; run the model once first: model(inputs)"
        )
    if parameter.requires_grad and torch._debug_has_internal_overlap(parameter) == 1:
        raise ValueError(
            f"model: entries of the parameter {name!r} share memory, as in an expanded tensor, so that neither "
            "a perturbation nor an optimizer can write to it; make it of the small tensor, and expand it in forward"
        )


def check_that_none_is_cached(model: nn.Module) -> None:
    """Raises ValueError for parametrized weights inside `parametrize.cached()`, which would stay those of w."""
    if parametrize._cache_enabled and any(parametrize.is_parametrized(module) for module in model.modules()):
        raise ValueError(
            "model: has parametrized weights, and runs inside torch.nn.utils.parametrize.cached(), which keeps them "
            "from pass to pass, so that no pass would see the perturbed weights; call method.backward outside of it"
        )
