"""The order of units in which one network is nearest to another: weight matching."""

from __future__ import annotations

import copy

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landscape.connectivity.permutable_units import (
    Group,
    Permutations,
    Structure,
    Tensors,
    order_of,
    permuted,
    structure_of,
)
from landscape.results.fields import described
from landscape.results.registry import result


@result
class Matching:
    """A permutation of the units of one network that brings its weights near those of another."""

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
    model: nn.Module, other: nn.Module, *, max_sweeps: int = 100, seed: int = 0
) -> tuple[nn.Module, Matching]:
    """A copy of `other` that computes the same function, with its units in the order nearest to `model`'s.

    Weight matching (Ainsworth, Hayase and Srinivasa 2023, arXiv:2209.04836, section 3.2): group by group, in
    random order, the assignment of units that raises the inner product of the weights most, the others held,
    until a sweep changes nothing. It finds a local optimum. The groups are found in the graph of the modules
    (`landscape.connectivity.permutable_units`): MLPs, convolutional networks and ResNets, with BatchNorm whose
    statistics move
    along.

    Args:
        model: stays as it is.
        other: of the same architecture.
        max_sweeps: at most so many.
        seed: of the order in which groups are taken.

    Returns:
        The copy, and the permutation.

    Raises:
        ValueError: another architecture, or one whose units cannot be followed.
    """
    if max_sweeps < 1:
        raise ValueError(f"max_sweeps: must be at least 1, got {max_sweeps}")
    structure = structure_of(model)
    wanted = {name: p.detach().double() for name, p in model.named_parameters()}
    given = {name: p.detach().double() for name, p in other.named_parameters()}
    if {n: p.shape for n, p in wanted.items()} != {n: p.shape for n, p in given.items()}:
        raise ValueError("other: must have parameters of the same names and shapes as model")
    given = {name: p.to(wanted[name].device) for name, p in given.items()}
    permutations: Permutations = {group: torch.arange(group.size) for group in structure.groups}
    generator = torch.Generator().manual_seed(seed)
    sweeps, changed = 0, True
    while changed and sweeps < max_sweeps:
        changed = False
        for index in torch.randperm(len(structure.groups), generator=generator).tolist():
            group = structure.groups[index]
            gains = _similarity(wanted, given, structure, permutations, group).cpu().numpy()
            best = torch.from_numpy(scipy.optimize.linear_sum_assignment(gains, maximize=True)[1])
            rows = np.arange(group.size)
            gain = gains[rows, best].sum() - gains[rows, permutations[group]].sum()
            # equal assignments must not take turns for ever
            if gain > 1e-12 * np.abs(gains).sum():
                permutations[group] = best
                changed = True
        sweeps += 1
    moved = copy.deepcopy(other)
    moved.load_state_dict(permuted(dict(other.state_dict()), structure, permutations))
    after = permuted(given, structure, permutations)
    orders = [permutations[group].numpy() for group in structure.groups]
    return moved, Matching(
        order=np.concatenate([np.zeros(0, dtype=np.int64), *orders]),
        group=np.repeat(np.arange(len(orders)), [len(order) for order in orders]),
        distance_before=_distance(wanted, given),
        distance_after=_distance(wanted, after),
        sweeps=sweeps,
        converged=not changed,
        seed=seed,
    )


def _similarity(
    wanted: Tensors, given: Tensors, structure: Structure, permutations: Permutations, group: Group
) -> Tensor:
    """(size, size): inner products of each unit of one network with each of the other, all else permuted."""
    total = torch.zeros(group.size, group.size, dtype=torch.float64)
    for (name, axis), segments in structure.axes.items():
        if name not in wanted or all(segment.group is not group for segment in segments):
            continue
        others = {key: value for key, value in permutations.items() if key is not group}
        one = wanted[name]
        two = given[name]
        for (tensor, dim), along in structure.axes.items():
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
