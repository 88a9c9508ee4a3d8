"""The Objective of the same loss and data at the current weights of a model in training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from landscape.fx.threads import ThreadLock
from landscape.loss.objective import Objective
from landscape.model.attributes import TakenOver
from landscape.model.copies import copied, make_gradients_plain, unwrapped
from landscape.model.penalty import Penalty
from landscape.model.weights import outputs_at, share_memory, tensors_of


@torch.no_grad()
def moved(objective: Objective, model: nn.Module, weights: Mapping[str, Tensor] | None = None) -> Objective:
    """The Objective at the current weights, buffers and attributes of layers (`TakenOver`) of `model`.

    Data, loss and settings are shared with the given Objective, which does not change. They are not checked again.

    Args:
        objective: the Objective of a copy of the model at other weights.
        model: a model with the layers of the objective's model. Wrappers are taken off.
        weights: weights for some of the model's parameters, in place of the current ones.

    Raises:
        ValueError: a parameter or buffer is missing or has another shape, as in a model that is spread over devices; or
            the model has a layer that the objective's model lacks.
    """
    made = copy.copy(objective)
    made.exclusive, made.memory = ThreadLock(), objective.memory.empty()
    made.gradients = made.products = 0
    with objective.exclusive:
        made.model = copied("model", objective.model)
    theirs = {**tensors_of(unwrapped(model)), **(weights or {})}
    for name, own in tensors_of(made.model).items():
        if name not in theirs or theirs[name].shape != own.shape:
            found = f"has {tuple(theirs[name].shape)}" if name in theirs else "lacks it"
            raise ValueError(
                f"model: the objective's {name!r} is {tuple(own.shape)}, the model {found}; make the objective of this "
                "model"
            )
        own.copy_(theirs[name])
    _take_over_attributes(made, unwrapped(model))
    make_gradients_plain(made.model)
    made.theta = torch.cat([made.model.get_parameter(name).flatten() for name in made.names])
    share_memory(made.model, made.layout, made.theta)
    made.forward = partial(outputs_at, made.model, made.layout, made.run)
    if objective.regularizer is not None:
        made.penalty = Penalty(objective.regularizer, made.model, made.layout)
    return made


def _take_over_attributes(made: Objective, other: nn.Module) -> None:
    """Gives each layer what the same layer of `other` holds besides parameters and buffers.

    Raises:
        ValueError: `other` has other layers.
    """
    modules = dict(made.model.named_modules())
    taken_over = TakenOver(made.device)
    for name, module in other.named_modules():
        if name not in modules or type(modules[name]) is not type(module):
            raise ValueError(
                f"model: its layer {name!r} is a {type(module).__name__}, which the objective's model has not; make "
                "the objective of this model"
            )
        taken_over.into(modules[name], module)
