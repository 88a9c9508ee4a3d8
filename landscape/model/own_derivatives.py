"""Passes that take derivatives in the weights by themselves, as the inner step of MAML does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from landscape.model.weights import with_weights


def run_in_variables(
    run: Callable[[nn.Module, Any], Any], names: frozenset[str], model: nn.Module, inputs: Any
) -> Any:
    """`run(model, inputs)`, in which the weights of these names require a gradient wherever torch records.

    A pass that differentiates in the weights by `torch.autograd.grad` finds them as in training, also where only its
    value is wanted.
    """
    if not torch.is_grad_enabled() or torch._C._functorch.peek_interpreter_stack() is not None:
        return run(model, inputs)
    constants = {
        name: weight.detach().requires_grad_()
        for name, weight in model.named_parameters()
        if name in names and not weight.requires_grad
    }
    return (
        with_weights(model, constants, lambda model: run(model, inputs)) if constants else run(model, inputs)
    )
