"""Ways to fill `.grad`: `method.backward(inputs, targets)` stands where `loss.backward()` stood."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from ncsam.methods.asam import ASAM
from ncsam.methods.aum import AUMFilter
from ncsam.methods.bsam import BSAM
from ncsam.methods.clean_sam import CleanSAM
from ncsam.methods.cluster_ncsam import ClusterNCSAM
from ncsam.methods.cores2 import CORES2
from ncsam.methods.coteaching import CoTeaching
from ncsam.methods.dividemix import DivideMix
from ncsam.methods.elr_plus import ELRPlus
from ncsam.methods.friendly_sam import FriendlySAM
from ncsam.methods.gsam import GSAM
from ncsam.methods.looksam import LookSAM
from ncsam.methods.method import Method
from ncsam.methods.ncsam import NCSAM
from ncsam.methods.one_sam import OneSAM
from ncsam.methods.oracle import OracleSAM
from ncsam.methods.passes import Passes
from ncsam.methods.pes import PES
from ncsam.methods.plain import Plain
from ncsam.methods.regce import RegCE
from ncsam.methods.requirements import Requirements
from ncsam.methods.sam import SAM
from ncsam.methods.sam_by_part import JacobianSAM, LogitSAM
from ncsam.methods.saner import SANER
from ncsam.methods.sop import SOP
from ncsam.methods.trace_penalty import FisherPenalty, JacobianPenalty
from ncsam.methods.training_loss import LossFunction, RememberingLoss, TrainingLoss, remembers_samples
from ncsam.methods.training_set import TrainingSet
from ncsam.methods.wsam import WSAM
from ncsam.options import Registry, options_of
from ncsam.plain_numbers import with_plain_numbers

METHODS: dict[str, type[Method]] = {
    "plain": Plain,
    "sam": SAM,
    "asam": ASAM,
    "gsam": GSAM,
    "friendly-sam": FriendlySAM,
    "bsam": BSAM,
    "saner": SANER,
    "j-sam": JacobianSAM,
    "l-sam": LogitSAM,
    "fisher-penalty": FisherPenalty,
    "jacobian-penalty": JacobianPenalty,
    "ncsam": NCSAM,
    "cluster-ncsam": ClusterNCSAM,
    "oracle-sam": OracleSAM,
    "co-teaching": CoTeaching,
    "cores2": CORES2,
    "looksam": LookSAM,
    "wsam": WSAM,
    "1-sam": OneSAM,
    "clean-sam": CleanSAM,
    "sop": SOP,
    "elr-plus": ELRPlus,
    "aum-filter": AUMFilter,
    "dividemix": DivideMix,
    "regce": RegCE,
    "pes": PES,
}

METHOD_REGISTRY = Registry(
    "method", METHODS, not_options=("seed", "clean_targets", "samples", "peer", "forward", "count")
)
"""The methods with their options. The code that builds a method hands over the arguments that are no options."""


def hyperparameters(name: str) -> dict[str, Any]:
    """The options of a method, each with its default value, or `inspect.Parameter.empty` where a value is needed.

    Raises:
        ValueError: the method is unknown.
    """
    return {
        key: inspect.Parameter.empty if option.required else option.default
        for key, option in METHOD_REGISTRY.options(name).items()
    }


@with_plain_numbers
def build_method(
    name: str,
    model: nn.Module,
    loss_fn: TrainingLoss,
    *,
    seed: int,
    clean_targets: Tensor,
    peer: nn.Module | None = None,
    **settings: Any,
) -> Method:
    """Builds a method by name.

    Args:
        name: one of `METHODS`.
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        seed: for the methods that draw.
        clean_targets: true labels of the training set, for the oracle; their number for methods that remember samples.
        peer: the second network, for methods whose `requires.peer` is true.
        settings: hyper-parameters, see `hyperparameters(name)`.

    Raises:
        ValueError: the method is unknown, or a hyper-parameter is missing, unknown, of another type or out of range.
    """
    METHOD_REGISTRY.check(name, settings)
    if METHODS[name].requires.peer and peer is None:
        raise ValueError(f"peer: method {name!r} needs a second network")
    handed_over: dict[str, Any] = {
        "seed": seed,
        "clean_targets": clean_targets,
        "samples": len(clean_targets),
        "peer": peer,
    }
    taken = options_of(METHODS[name])
    return METHODS[name](
        model, loss_fn, **settings, **{key: value for key, value in handed_over.items() if key in taken}
    )


__all__ = [
    "ASAM",
    "BSAM",
    "CORES2",
    "GSAM",
    "METHODS",
    "METHOD_REGISTRY",
    "NCSAM",
    "PES",
    "SAM",
    "SANER",
    "SOP",
    "WSAM",
    "AUMFilter",
    "CleanSAM",
    "ClusterNCSAM",
    "CoTeaching",
    "DivideMix",
    "ELRPlus",
    "FisherPenalty",
    "FriendlySAM",
    "JacobianPenalty",
    "JacobianSAM",
    "LogitSAM",
    "LookSAM",
    "LossFunction",
    "Method",
    "OneSAM",
    "OracleSAM",
    "Passes",
    "Plain",
    "RegCE",
    "RememberingLoss",
    "Requirements",
    "TrainingSet",
    "build_method",
    "hyperparameters",
    "remembers_samples",
]
