"""The unit of a loss: nat for a log-likelihood, no unit for others."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.nn import functional

from landscape.data.places import LossOfPlaces

LOG_LIKELIHOODS = (
    nn.CrossEntropyLoss,
    nn.NLLLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.KLDivLoss,
    nn.PoissonNLLLoss,
    nn.GaussianNLLLoss,
    nn.MultiLabelSoftMarginLoss,
)
FUNCTIONS = (
    functional.cross_entropy,
    functional.nll_loss,
    functional.binary_cross_entropy,
    functional.binary_cross_entropy_with_logits,
    functional.kl_div,
    functional.poisson_nll_loss,
    functional.gaussian_nll_loss,
    functional.multilabel_soft_margin_loss,
)


def unit_of(loss_fn: Any) -> str:
    """ "nat" for torch's log-likelihoods; empty for every other loss, because its unit is not known."""
    if isinstance(loss_fn, LossOfPlaces):
        return unit_of(loss_fn.loss)
    if isinstance(loss_fn, partial):
        return unit_of(loss_fn.func)
    return "nat" if isinstance(loss_fn, LOG_LIKELIHOODS) or loss_fn in FUNCTIONS else ""


def common_unit(loss_fns: Iterable[Any]) -> str:
    """The unit that all these losses share; empty if their units differ."""
    units = {unit_of(loss_fn) for loss_fn in loss_fns}
    return units.pop() if len(units) == 1 else ""
