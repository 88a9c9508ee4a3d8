"""What the size of a perturbation is relative to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from landscape.loss.objective import Objective

ADAPTIVE = ("none", "elementwise", "filter")


def scale_of(objective: Objective, adaptive: str) -> Tensor | float:
    """T, by which perturbations T u are scaled: relative to the weights they do not change when these are rescaled.

    `"elementwise"`: |theta|, invariant to every rescaling of units that leaves a ReLU network's function as it is.
    `"filter"`: for each weight the norm of its output filter or row, |theta| for one-dimensional parameters
    (Kwon et al. 2021, section 3); invariant to rescaling of whole layers, and of filters before BatchNorm.

    Raises:
        ValueError: unknown choice.
    """
    if adaptive not in ADAPTIVE:
        raise ValueError(f"adaptive: must be one of {', '.join(ADAPTIVE)}, got {adaptive!r}")
    if adaptive == "none":
        return 1.0
    if adaptive == "elementwise":
        return objective.theta.abs()
    parts = []
    for name, weight in objective.unflatten(objective.theta).items():
        if weight.ndim < 2:
            parts.append(weight.abs().flatten())
            continue
        parts.append(filter_norms(objective, name, weight).expand_as(weight).flatten())
    return torch.cat(parts)


def filter_norms(objective: Objective, name: str, tensor: Tensor) -> Tensor:
    """The norms of the output filters or rows of one weight tensor, in a shape that broadcasts to the tensor's.

    Outputs lie along the first axis; for transposed convolutions (inputs, outputs of a group, ...) along the second, in
    each group of inputs. Which it is says the module of torch that holds the tensor; weights made of others
    (`torch.nn.utils.parametrizations`) count as of the first kind.
    """
    owner = objective.model.get_submodule(name.rpartition(".")[0])
    if not isinstance(owner, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return torch.linalg.vector_norm(tensor.flatten(1), dim=1).view(-1, *[1] * (tensor.ndim - 1))
    groups = tensor.unflatten(0, (owner.groups, -1))
    norms = torch.linalg.vector_norm(groups, dim=[1, *range(3, groups.ndim)], keepdim=True)
    return norms.expand(-1, groups.shape[1], *[-1] * (groups.ndim - 2)).flatten(0, 1)
