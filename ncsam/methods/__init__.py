"""Ways to fill `.grad`: `method.backward(inputs, targets)` stands where `loss.backward()` stood."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from ncsam.methods.ncsam import NCSAM
from ncsam.methods.oracle import OracleSAM
from ncsam.methods.perturbation import LossFunction
from ncsam.methods.plain import Plain
from ncsam.methods.sam import SAM

METHODS: dict[str, type[Plain]] = {"plain": Plain, "sam": SAM, "ncsam": NCSAM, "oracle-sam": OracleSAM}

# handed over by the training that builds the method, not chosen by whoever configures it
_GIVEN_BY_TRAINING = ("seed", "clean_targets", "simulated_noise_loss")


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
    loss_fn: LossFunction,
    *,
    seed: int,
    clean_targets: Tensor,
    **settings: Any,
) -> Plain:
    """Builds a method by name.

    Args:
        name: one of `METHODS`.
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        seed: for the methods that draw.
        clean_targets: true labels of the training set, for the oracle.
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
    given = {"seed": seed, "clean_targets": clean_targets}
    taken = inspect.signature(METHODS[name]).parameters
    return METHODS[name](model, loss_fn, **settings, **{k: v for k, v in given.items() if k in taken})


__all__ = [
    "METHODS",
    "NCSAM",
    "SAM",
    "LossFunction",
    "OracleSAM",
    "Plain",
    "build_method",
    "hyperparameters",
]
