"""Weight matching: reorders the units of one network so that its weights come nearest to another network's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landscape.connectivity.permutable_units import PermutableUnits, units_of
from landscape.connectivity.permutations import Permutations, Tensors, order_of, permuted
from landscape.connectivity.signals import Group
from landscape.data.complex_numbers import cast, in_dtype
from landscape.guards.repeated_runs import ALLOWED_IN_FLOAT64, UNORDERED, share_apart
from landscape.model.copies import copied
from landscape.results.fields import described
from landscape.results.registry import result
from landscape.results.shown import Result
from landscape.seeds import generator_for


@result
class Matching(Result):
    """A permutation of the units of one network that brings its weights near another network's weights."""

    order: NDArray[np.int64] = described(
        "positions from which the units of each group are taken, group after group", dims=("unit",)
    )
    group: NDArray[np.int64] = described("group of each unit", dims=("unit",))
    distance_before: float = described("l2 distance between the weights as they were")
    distance_after: float = described("l2 distance between the weights after matching")
    sweeps: int = described("times that all groups were matched")
    converged: bool = described("the last sweep changed nothing")
    seed: int = described("seed of the order of the groups")


def matched(
    model: nn.Module,
    other: nn.Module,
    *,
    inputs: Tensor | None = None,
    max_sweeps: int = 100,
    seed: int = 0,
) -> tuple[nn.Module, Matching]:
    """A copy of `other` that computes the same function, with its units in the order that is nearest to `model`.

    Weight matching (Ainsworth, Hayase and Srinivasa 2023, arXiv:2209.04836, section 3.2). The groups of units are taken
    one by one in random order. Each group gets the assignment that raises the inner product of the weights most while
    the other groups stay. A sweep that changes nothing is a local optimum and ends the search. The groups are found in
    the graph of the modules (`landscape.connectivity.permutable_units`), for MLPs, convolutional networks and ResNets.
    The statistics of BatchNorm move with their units.

    Args:
        model: a network; it is not changed.
        other: a network of the same architecture; it is not changed.
        inputs: a batch of inputs. The outputs of the copy and of `other` are compared for them, in evaluation mode and
            float64 where the network runs in it. The graph alone leaves some shapes open, such as whether a BatchNorm1d
            behind a linear layer sees positions; without inputs the usual shape is assumed, and a warning names it.
        max_sweeps: the largest number of sweeps.
        seed: seed of the order of the groups.

    Returns:
        The copy, and the permutation.

    Raises:
        ValueError: the architectures differ, the units cannot be followed, or the copy computes something else.
    """
    if max_sweeps < 1:
        raise ValueError(f"max_sweeps: must be at least 1, got {max_sweeps}")
    units = units_of(model)
    weights = {name: p.detach().double() for name, p in model.named_parameters()}
    other_weights = {name: p.detach().double() for name, p in other.named_parameters()}
    if {n: p.shape for n, p in weights.items()} != {n: p.shape for n, p in other_weights.items()}:
        raise ValueError("other: must have parameters of the same names and shapes as model")
    if units.signature() != _units_of_other(other).signature():
        raise ValueError("other: its layers are connected otherwise than those of model")
    if inputs is None and units.assumed:
        warnings.warn(
            f"model: it is assumed that {units.assumed[0]}; give inputs=, so that the outputs of the matched "
            "network are compared with those of other",
            stacklevel=2,
        )
    other_weights = {name: p.to(weights[name].device) for name, p in other_weights.items()}
    permutations: Permutations = {group: torch.arange(group.size, device="cpu") for group in units.groups}
    generator = generator_for("order of matching", seed)
    sweeps, changed = 0, True
    while changed and sweeps < max_sweeps:
        changed = False
        for index in torch.randperm(len(units.groups), generator=generator, device="cpu").tolist():
            group = units.groups[index]
            gains = _similarity(weights, other_weights, units, permutations, group).cpu().numpy()
            best = torch.from_numpy(scipy.optimize.linear_sum_assignment(gains, maximize=True)[1])
            rows = np.arange(group.size)
            gain = gains[rows, best].sum() - gains[rows, permutations[group]].sum()
            # assignments of equal value must not replace each other for ever
            if gain > 1e-12 * np.abs(gains).sum():
                permutations[group] = best
                changed = True
        sweeps += 1
    moved = copied("other", other)
    moved.load_state_dict(permuted(dict(other.state_dict()), units, permutations))
    if inputs is not None:
        _check_that_it_computes_the_same(moved, other, inputs, units.assumed)
    after = permuted(other_weights, units, permutations)
    orders = [permutations[group].numpy() for group in units.groups]
    return moved, Matching(
        order=np.concatenate([np.zeros(0, dtype=np.int64), *orders]),
        group=np.repeat(np.arange(len(orders)), [len(order) for order in orders]),
        distance_before=_distance(weights, other_weights),
        distance_after=_distance(weights, after),
        sweeps=sweeps,
        converged=not changed,
        seed=seed,
    )


def _units_of_other(other: nn.Module) -> PermutableUnits:
    try:
        return units_of(other)
    except ValueError as error:
        raise ValueError(f"other{str(error).removeprefix('model')}") from error


@torch.no_grad()
def _check_that_it_computes_the_same(
    moved: nn.Module, other: nn.Module, inputs: Tensor, assumed: tuple[str, ...]
) -> None:
    """Raises ValueError if the outputs of two networks for a batch of inputs differ by more than rounding."""
    inputs = inputs.to(next(other.parameters()).device)

    def outputs_in(dtype: torch.dtype | None) -> list[Any]:
        networks = [cast(copied("other", network), dtype).eval() for network in (moved, other)]
        # a network may change its inputs
        return [network(in_dtype(inputs.clone(), dtype) if dtype else inputs.clone()) for network in networks]

    try:
        outputs, allowed = outputs_in(torch.float64), ALLOWED_IN_FLOAT64
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        # some layers insist on their own dtype
        outputs, allowed = outputs_in(None), UNORDERED
    share = share_apart(*outputs)
    if share > allowed:
        cause = (
            f"it was assumed that {assumed[0]}"
            if assumed
            else "its units move where its graph does not show it"
        )
        raise ValueError(
            "model: its units cannot be followed: for these inputs the matched network differs from other by "
            f"{share:.1e} of the largest output; {cause}"
        )


def _similarity(
    weights: Tensors, other_weights: Tensors, units: PermutableUnits, permutations: Permutations, group: Group
) -> Tensor:
    """Inner products of each unit of one network with each unit of the other, (size, size), other groups permuted."""
    total = torch.zeros(group.size, group.size, dtype=torch.float64, device="cpu")
    for (name, axis), segments in units.axes.items():
        if name not in weights or all(segment.group is not group for segment in segments):
            continue
        others = {key: value for key, value in permutations.items() if key is not group}
        one = weights[name]
        two = other_weights[name]
        for (tensor, dim), along in units.axes.items():
            if tensor == name:
                order = order_of(along, others if dim == axis else permutations)
                two = two.index_select(dim, order.to(two.device))
        start = 0
        for segment in segments:
            length = segment.group.size * segment.repeat
            if segment.group is group:
                pair = [
                    part.movedim(axis, 0)[start : start + length].reshape(group.size, -1)
                    for part in (one, two)
                ]
                total += (pair[0] @ pair[1].T).cpu()
            start += length
    return total


def _distance(first: Tensors, second: Tensors) -> float:
    return sum((first[name] - second[name]).square().sum().item() for name in first) ** 0.5
