"""Ways to fill `.grad`: `method.backward(inputs, targets)` stands where `loss.backward()` stood."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from ncsam.methods.asam import ASAM
from ncsam.methods.bsam import BSAM
from ncsam.methods.cluster_ncsam import ClusterNCSAM
from ncsam.methods.coteaching import CoTeaching
from ncsam.methods.friendly_sam import FriendlySAM
from ncsam.methods.gsam import GSAM
from ncsam.methods.ncsam import NCSAM
from ncsam.methods.oracle import OracleSAM
from ncsam.methods.passes import LossFunction, Passes, RememberingLoss
from ncsam.methods.plain import Plain
from ncsam.methods.sam import SAM
from ncsam.methods.saner import SANER

METHODS: dict[str, type[Plain]] = {
    "plain": Plain,
    "sam": SAM,
    "asam": ASAM,
    "gsam": GSAM,
    "friendly-sam": FriendlySAM,
    "bsam": BSAM,
    "saner": SANER,
    "ncsam": NCSAM,
    "cluster-ncsam": ClusterNCSAM,
    "oracle-sam": OracleSAM,
    "co-teaching": CoTeaching,
}

# handed over by the training that builds the method, not chosen by whoever configures it
_GIVEN_BY_TRAINING = ("seed", "clean_targets", "peer")


def hyperparameters(name: str) -> dict[str, Any]:
    """What can be set of a method, with the default value; `inspect.Parameter.empty` where one must be given.

    Raises:
        ValueError: unknown method.
    """
    if name not in METHODS:
        raise ValueError(f"method: unknown name {name!r}; known: {', '.join(METHODS)}")
    parameters = inspect.signature(METHODS[name]).parameters.values()
    return {
        p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _GIVEN_BY_TRAINING
    }


def build_method(
    name: str,
    model: nn.Module,
    loss_fn: LossFunction | RememberingLoss,
    *,
    seed: int,
    clean_targets: Tensor,
    peer: nn.Module | None = None,
    **settings: Any,
) -> Plain:
    """Builds a method by name.

    Args:
        name: one of `METHODS`.
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        seed: for the methods that draw.
        clean_targets: true labels of the training set, for the oracle.
        peer: the second network of co-teaching.
        settings: hyper-parameters, see `hyperparameters(name)`.

    Raises:
        ValueError: unknown method, or a hyper-parameter that is missing, unknown or out of range.
    """
    known = hyperparameters(name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        allowed = ", ".join(known) or "none"
        raise ValueError(f"{unknown[0]}: not a hyper-parameter of method {name!r}; allowed: {allowed}")
    missing = [
        key for key, default in known.items() if default is inspect.Parameter.empty and key not in settings
    ]
    if missing:
        raise ValueError(f"{missing[0]}: method {name!r} needs it")
    given = {"seed": seed, "clean_targets": clean_targets, "peer": peer}
    if name == "co-teaching" and peer is None:
        raise ValueError("peer: method 'co-teaching' needs a second network")
    taken = inspect.signature(METHODS[name]).parameters
    return METHODS[name](model, loss_fn, **settings, **{k: v for k, v in given.items() if k in taken})


__all__ = [
    "ASAM",
    "BSAM",
    "GSAM",
    "METHODS",
    "NCSAM",
    "SAM",
    "SANER",
    "ClusterNCSAM",
    "CoTeaching",
    "FriendlySAM",
    "LossFunction",
    "OracleSAM",
    "Passes",
    "Plain",
    "RememberingLoss",
    "build_method",
    "hyperparameters",
]
