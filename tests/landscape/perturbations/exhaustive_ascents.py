"""The largest rise of a loss near its weights, by many ascents that know nothing of `landscape`'s search."""

import torch
from torch import nn


def exhaustive(objective, neighborhood, steps=100, starts=10):
    """Projected gradient ascents, side by side, with steps that shrink to nothing (Madry et al. 2018)."""
    scale, rho, center = neighborhood.scale, neighborhood.rho, objective.value()

    def rise(offset):
        weights = objective.unflatten(objective.theta + scale * offset)
        outputs = torch.func.functional_call(objective.model, weights, objective.inputs)
        return objective.loss_fn(outputs, objective.targets) - center

    def border(directions):
        if neighborhood.norm == "linf":
            return rho * directions.sign()
        return rho * nn.functional.normalize(directions, dim=1)

    def nearest(points):
        if neighborhood.norm == "linf":
            return points.clamp(-rho, rho)
        return torch.where(points.norm(dim=1, keepdim=True) > rho, border(points), points)

    slopes = torch.func.vmap(torch.func.grad(rise))
    generator = torch.Generator().manual_seed(1)
    offsets = border(torch.randn(starts, objective.n_parameters, generator=generator, dtype=objective.dtype))
    for step in range(steps):
        offsets = nearest(offsets + (1 - step / steps) * border(slopes(offsets)))
    return float(torch.func.vmap(rise)(offsets).max())
