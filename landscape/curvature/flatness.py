"""Relative flatness of one layer: curvature weighted by the weights. Rescaling of layers does not change it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landscape.krylov.counted import counted_products
from landscape.krylov.traces import check_products, trace_and_squared_norm
from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_objective
from landscape.matrices.hessian import Hessian
from landscape.operator import SymmetricOperator
from landscape.progress import Progress
from landscape.results.fields import described
from landscape.results.registry import result
from landscape.results.shown import Result
from landscape.seeds import generator_for


@result
class RelativeFlatness(Result):
    """The trace of a layer's Hessian, weighted by the inner products of the units' weights."""

    value: float = described("relative flatness kappa: larger is sharper")
    standard_error: float = described(
        "standard error of the value, a quarter of the width of its 95% interval"
    )
    low: float = described("lower end of the value's 95% interval")
    high: float = described("upper end of the value's 95% interval")
    layer: str = described("name of the weights")
    converged: bool = described("the 95% interval is within +-2 rtol of the value")
    products: int = described("matrix-vector products spent", unit="products")
    samples: int = described("samples in the mean loss")


@of_objective
def relative_flatness(
    objective: Objective,
    layer: str | None = None,
    *,
    rtol: float | None = 0.05,
    max_products: int = 200,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> RelativeFlatness:
    """Relative flatness kappa = sum_{s, s'} <w_s, w_s'> Tr H_{s, s'} of one layer, where w_s are the weights of unit s.

    H_{s, s'} is the block of the Hessian between the weights of two units. With W W^T = R R^T, kappa is the trace of
    (R x I)^T H (R x I). This trace is estimated like any other (`landscape.krylov.trace_and_squared_norm`), and is
    exact if the layer is small. Kappa does not change when the layers of a ReLU network are rescaled. Cost: products
    with the Hessian of the layer. Source: Petzka et al. 2021 (arXiv:2001.00939), definition 3.

    Args:
        objective: its loss is measured, in evaluation mode.
        layer: name of the weights, whose first axis counts the units. If not given, those of the last layer, as in the
            paper.
        rtol: sampling ends when the 95% interval is within +-2 rtol |value|; None spends the whole budget.
        max_products: most products that may be spent.
        seed: seed of the probes.
        progress: called with the products spent and the most that may be spent. True writes a line on the terminal.

    Raises:
        ValueError: the layer does not exist, or an argument is out of range.
    """
    part = _of_layer(objective, layer)
    (name,) = part.names
    factor = _factor(part)
    if factor is None:
        nothing = (math.nan,) * 4
        return RelativeFlatness(*nothing, name, False, 0, objective.n_samples)
    (units, rank), inputs = factor.shape, part.n_parameters // len(factor)
    if rank == 0:
        return RelativeFlatness(0.0, 0.0, 0.0, 0.0, name, True, 0, objective.n_samples)

    hessian = Hessian(part)
    hessian.expect(min(12, max_products))

    def product(block: Tensor) -> Tensor:
        columns = block.reshape(rank, -1)
        moved = (factor @ columns).reshape(units * inputs, -1)
        products = (hessian @ moved).double()
        back: Tensor = factor.T @ products.reshape(units, -1)
        return back.reshape(rank * inputs, -1)

    operator = SymmetricOperator(product, rank * inputs, objective.dtype, objective.device)
    with counted_products(operator, max_products, progress, "relative flatness") as counted:
        found = trace_and_squared_norm(
            counted,
            method=_method(objective, rank * inputs, max_products),
            rtol=rtol,
            max_products=max_products,
            generator=generator_for("probes of relative flatness", seed),
        )
    return RelativeFlatness(
        value=found.trace.value,
        standard_error=found.trace.standard_error,
        low=found.trace.low,
        high=found.trace.high,
        layer=name,
        converged=found.converged,
        products=found.products,
        samples=objective.n_samples,
    )


def check_relative_flatness(objective: Objective, layer: str | None, max_products: int) -> None:
    """Checks the arguments of `relative_flatness`, which costs no product.

    Raises:
        ValueError: the layer does not exist, or there are too few products.
    """
    part = _of_layer(objective, layer)
    factor = _factor(part)
    if factor is not None and factor.shape[1]:
        dimension = factor.shape[1] * (part.n_parameters // len(factor))
        check_products(max_products, _method(objective, dimension, max_products), dimension)


def _of_layer(objective: Objective, layer: str | None) -> Objective:
    """The objective as a function of the weights of one layer, the last one if none is named."""
    matrices = [
        name
        for name, shape in zip(objective.names, objective.shapes, strict=True)
        if len(shape) > 1 and shape.numel()
    ]
    name = layer or (matrices[-1] if matrices else None)
    if name not in matrices:
        raise ValueError(
            f"layer: must be one of {', '.join(matrices) or 'none: no matrix is there'}, got {layer!r}"
        )
    part = objective.subset(parameters=lambda parameter: parameter == name)
    part.memory.check_room(4, f"relative_flatness of {name!r}", in_float64=True)
    return part


def _factor(part: Objective) -> Tensor | None:
    """R (units, rank) in float64 with W W^T = R R^T, for the weights W of one layer; None if W is not finite."""
    weights = part.theta.view(part.shapes[0]).flatten(1).double()
    if not bool(torch.isfinite(weights).all()):
        return None
    # with W = U S V^T, R = U S has only as many columns as W has rank
    left, sizes, _ = torch.linalg.svd(weights, full_matrices=False)
    kept = sizes > 1e-12 * sizes.max()
    return left[:, kept] * sizes[kept]


def _method(objective: Objective, dimension: int, max_products: int) -> str:
    """XTrace, where its vectors fit the memory budget."""
    return "xtrace" if 16 * dimension * max_products <= objective.memory_budget else "hutchinson"
