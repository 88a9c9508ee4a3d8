"""Mixtures of pairs of samples, for methods that mix the inputs of a batch and their targets by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ncsam.mixture_draw import share_and_partner


@dataclass(frozen=True)
class Mixture:
    """Each row of a batch mixed with another one, of which it has the smaller share.

    Attributes:
        share: of the row itself, at least 1/2.
        partner: int64 (batch,), the other rows.
    """

    share: float
    partner: Tensor

    @classmethod
    def drawn(cls, inputs: Tensor, alpha: float, generator: torch.Generator) -> Mixture:
        """A mixture with a share of Beta(alpha, alpha), as ELR+ and DivideMix draw it, once a batch.

        Raises:
            ValueError: the inputs are no tensor of floating-point numbers.
        """
        share, partner = share_and_partner("inputs", inputs, alpha, generator)
        return cls(max(share, 1 - share), partner)

    def of(self, rows: Tensor) -> Tensor:
        """The mixed rows."""
        return self.share * rows + (1 - self.share) * rows[self.partner]
