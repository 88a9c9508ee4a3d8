"""Whether an objective's model, with the weights of another network, is that network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from landscape.data.batches import Batch, copied_to
from landscape.data.random_state import borrowed_generators
from landscape.evaluation.batch_norm import keeps_statistics
from landscape.guards.repeated_runs import UNORDERED, share_apart
from landscape.loss.objective import Objective
from landscape.loss.same_function import PRECISE, SAMPLES
from landscape.model.copies import copied, unwrapped
from landscape.model.given_vectors import tensor_of
from landscape.model.recurrent_layers import avoid_cudnn_recurrence
from landscape.model.weights import Weights, tensors_of, with_weights

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers of BatchNorm. Whoever evaluates along a direction chooses whether they stay or are computed anew."""

Outputs = Callable[[Batch], Any]


@torch.no_grad()
def check_that_weights_lead_to(objective: Objective, other: Weights) -> None:
    """Checks that the objective's model becomes the other network when it gets that network's weights.

    What is no variable of the objective stays: frozen parameters, buffers such as the masks of pruning, and attributes
    of layers. Where such a tensor of the other network differs, the outputs of both are compared for all samples, and
    a difference without an effect, such as another number of steps, is accepted. A module is run itself, at least for
    some samples; where it cannot be copied and run, its tensors are compared as those of its `state_dict` would be. The
    statistics of BatchNorm are those of the objective in both. A vector or a list of tensors tells
    nothing of the rest, and is not checked.

    Args:
        objective: of one network.
        other: the other one: a module, or its tensors by name.

    Raises:
        ValueError: the outputs differ, or a tensor that would stay has another shape.
    """
    network = unwrapped(other) if isinstance(other, nn.Module) else None
    theirs = other if isinstance(other, Mapping) else {} if network is None else tensors_of(network)
    if network is None and not theirs:
        return
    theta = objective.flatten(other)
    with objective.ranks.together():
        rest = _Rest.of(objective, theirs)
        outputs = None if network is None else _runs(objective, network, rest)
        if outputs is None and rest.differing:
            outputs = partial(objective.outputs, theta, buffers=rest.differing)
        if outputs is not None and _differ(
            objective, outputs, partial(objective.outputs, theta), bool(rest.differing)
        ):
            raise ValueError(rest.complaint())


@dataclass(frozen=True)
class _Rest:
    """The tensors that are no variables of an objective.

    Attributes:
        statistics: the objective's own statistics of BatchNorm.
        differing: the other network's tensors that differ, in the dtype and on the device of the objective's.
    """

    statistics: dict[str, Tensor]
    differing: dict[str, Tensor]

    @classmethod
    def of(cls, objective: Objective, theirs: Mapping[str, Any]) -> _Rest:
        norms = [name for name, module in objective.model.named_modules() if keeps_statistics(module)]
        of_norms = {f"{name}.{kind}".removeprefix(".") for name in norms for kind in STATISTICS}
        statistics, differing = {}, {}
        for name, tensor in objective.tensors().items():
            if name in of_norms:
                statistics[name] = tensor
            elif name not in objective.names and name in theirs:
                found = tensor_of(theirs[name]).detach().to(tensor)
                if found.shape != tensor.shape:
                    raise ValueError(
                        f"other: its {name!r} is {tuple(found.shape)}, the objective's is {tuple(tensor.shape)}"
                    )
                if not torch.equal(found, tensor):
                    differing[name] = found
        return cls(statistics, differing)

    def complaint(self) -> str:
        if not self.differing:
            return (
                "other: its outputs are not those of the objective's model with its weights; they differ in layers, "
                "or in what layers hold besides parameters and buffers, such as a temperature; make the objective of "
                "a network like it"
            )
        first, *others = self.differing
        and_others = f" (and {len(others)} more)" if others else ""
        return (
            f"other: its {first!r} differs{and_others}, but is no variable of the objective, and would stay; make a "
            "frozen parameter a variable too (parameters=); a buffer, such as a mask of pruning, must be the same in "
            "both"
        )


def _runs(objective: Objective, network: nn.Module, rest: _Rest) -> Outputs | None:
    """The outputs of a copy of the other network in evaluation mode; None if it cannot be copied or run."""
    try:
        copy = copied("other", network).eval()
    except Exception:  # what a module holds may fail in any way, such as a trainer with its open files
        return None
    avoid_cudnn_recurrence(copy)
    own, found = objective.tensors(), tensors_of(copy)
    tensors = {name: tensor.to(own[name]) if name in own else tensor for name, tensor in found.items()}
    tensors |= {name: tensor for name, tensor in rest.statistics.items() if name in found}

    def outputs(inputs: Batch) -> Any:
        return with_weights(copy, tensors, lambda model: objective.run(model, inputs))

    some = copied_to(objective.chunks.first(SAMPLES)[0], objective.device)
    try:
        with borrowed_generators(objective.device), objective.without_gradients():
            outputs(some)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # its forward may need a device or a trainer that this copy has not
        return None
    return outputs


def _differ(objective: Objective, one: Outputs, two: Outputs, for_all: bool) -> bool:
    """Whether two functions of inputs differ by more than rounding, for all samples or for the first."""
    for inputs in _inputs(objective, for_all):
        results = []
        for function in (one, two):
            # a model may change its inputs, or draw
            with borrowed_generators(objective.device), objective.without_gradients():
                results.append(function(copied_to(inputs, objective.device)))
        allowed = PRECISE if objective.dtype == torch.float64 else UNORDERED
        if share_apart(*results) > allowed:
            return True
    return False


def _inputs(objective: Objective, for_all: bool) -> Iterable[Batch]:
    if not for_all:
        return [objective.chunks.first(SAMPLES)[0]]
    return (chunk.pair[0] for chunk in objective.chunks)
