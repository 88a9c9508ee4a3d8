"""Trained weights that a forward pass writes to, as an initialization by the first batch does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ncsam.methods.state import has_same_numbers


@dataclass(frozen=True)
class CopiedWeights:
    """The trained weights of a model at one time, without those that pass after pass brings back to a norm."""

    weights: list[nn.Parameter]
    copies: list[Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module) -> CopiedWeights:
        """The weights now."""
        found = [
            parameter
            for module in model.modules()
            if getattr(module, "max_norm", None) is None
            for parameter in module._parameters.values()
            if parameter is not None and parameter.requires_grad and not is_lazy(parameter)
        ]
        return cls(found, [parameter.detach().clone() for parameter in found])

    @torch.no_grad()
    def are_written(self) -> bool:
        """Whether a weight has changed since. NaN is no change."""
        return not all(map(has_same_numbers, self.weights, self.copies))
