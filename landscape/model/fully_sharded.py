"""Models under FSDP2 (`torch.distributed.fsdp.fully_shard`), each of whose weights is shared out over the ranks.

FSDP's own hooks reduce gradients to numbers without a history, so that nothing could be differentiated twice. The copy
of such a model has plain tensors, the rank's parts, in the place of DTensors, and hooks of its own: before a module
that was given to `fully_shard` runs, its weights are gathered from all ranks, and put away afterward. Gathering is
linear and its derivative is a sum over the ranks, so that gradients and exact products come out as parts, summed over
the samples of all ranks. What autograd would keep of gathered weights is gathered again where it is needed, so that no
rank holds more of them than a module needs. Before each communication the ranks agree, so that none waits for one that
failed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from landscape.ranks import agree

# torch 2.13 renamed both
ALL_GATHER: Callable[..., Any] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
REDUCE_SCATTER: Callable[..., Any] = (
    getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
)

REMEDY = (
    "; measure a model without it, loaded from a full state dict (torch.distributed.checkpoint.state_dict)"
)


def is_sharded(model: object) -> bool:
    """Whether FSDP2 shards the model, or a part of it."""
    # the import takes a second, which a model of one process need not wait for
    if not (isinstance(model, nn.Module) and dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


def own_part(tensor: Tensor) -> Tensor:
    """This rank's part of a weight of a sharded model; any other tensor itself."""
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    from torch.distributed.tensor import DTensor

    if isinstance(tensor, DTensor):
        part: Tensor = tensor.to_local()
        return part
    return tensor


def group_of(model: nn.Module) -> dist.ProcessGroup:
    """The ranks that share the weights of a sharded model.

    Raises:
        ValueError: a part of the model lies whole on each rank, or is sharded in another way.
    """
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor, Shard

    for module in model.modules():
        if isinstance(module, FSDPModule):
            # a forward pass leaves whole weights behind
            module.reshard()
    meshes = []
    for name, parameter in model.named_parameters():
        if not isinstance(parameter, DTensor):
            if parameter.requires_grad:
                raise ValueError(
                    f"model: FSDP2 shards a part of it, but not {name!r}; call fully_shard on the whole model too"
                )
            continue
        if parameter.device_mesh.ndim != 1 or parameter.placements != (Shard(0),):
            raise ValueError(
                f"model: {name!r} is sharded as {parameter.placements} over {parameter.device_mesh.ndim} dimensions; "
                f"only the plain fully_shard over one dimension is measured{REMEDY}"
            )
        meshes.append(parameter.device_mesh)
    if not isinstance(model, FSDPModule) and any(
        isinstance(module, FSDPModule) and _keeps_weights(module) for module in model.modules()
    ):
        raise ValueError(
            "model: a part of it was given to fully_shard with reshard_after_forward=False, and the whole model was "
            "not; call fully_shard on the whole model too"
        )
    if any(mesh != meshes[0] for mesh in meshes):
        raise ValueError(f"model: its weights are sharded over several meshes{REMEDY}")
    return meshes[0].get_group()


def copy_of_parts(model: nn.Module) -> nn.Module:
    """A copy of a sharded model whose parameters are this rank's parts, gathered when a module runs."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    group = group_of(model)
    memo: dict[int, Any] = {}
    lengths: dict[int, int] = {}
    for parameter in model.parameters():
        if isinstance(parameter, DTensor):
            part = nn.Parameter(parameter.to_local().detach().clone(), parameter.requires_grad)
            memo[id(parameter)] = part
            lengths[id(part)] = parameter.shape[0]
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        original: Any = type(module).__mro__[type(module)._orig_cls_mro_index]
        memo[id(module)] = original.__new__(original)
    for module in sharded:
        memo[id(module)].__dict__.update(
            {
                name: copy.deepcopy(_without_fsdp(value), memo)
                for name, value in vars(module).items()
                if not name.startswith("__composable_api")
            }
        )
    result: nn.Module = copy.deepcopy(model, memo)
    units = {id(memo[id(module)]) for module in sharded}
    kept = [module for module in sharded if module is not model and _keeps_weights(module)]
    for module in sharded:
        if module in kept:
            continue
        holders = [module, *kept] if module is model else [module]
        places = tuple(place for holder in holders for place in _places_of(memo[id(holder)], units, lengths))
        if places:
            Unit(group, places).watch(memo[id(module)])
    return result


def _keeps_weights(module: Any) -> bool:
    """Whether a unit's weights stay whole after its forward pass (`reshard_after_forward=False`).

    Other modules may then read these weights, such as an output layer that is tied to an embedding. The whole model
    gathers them here, so that they are whole in all of its forward pass.
    """
    group = module._get_fsdp_state()._fsdp_param_group
    return group is not None and group.post_forward_mesh_info is None


def _without_fsdp(value: Any) -> Any:
    """The hooks of a module without those of FSDP; anything else as it is."""
    if not isinstance(value, dict):
        return value
    return type(value)(
        (key, hook)
        for key, hook in value.items()
        if not (getattr(hook, "__module__", None) or "").startswith("torch.distributed.fsdp")
        or isinstance(hook, nn.Module)
    )


def _places_of(module: nn.Module, units: set[int], lengths: dict[int, int]) -> Iterator[Place]:
    """Where the weights stand that this module gathers: those below it, but for those of units below it."""
    for name, parameter in module._parameters.items():
        if parameter is not None and id(parameter) in lengths:
            yield Place(module, name, lengths[id(parameter)])
    for child in module.children():
        if id(child) not in units:
            yield from _places_of(child, units, lengths)


@dataclass(frozen=True)
class Place:
    """A parameter of a module: where it stands, and how many rows it has on all ranks together."""

    module: nn.Module
    name: str
    rows: int


@dataclass
class Unit:
    """The weights that are gathered together when a module runs.

    Attributes:
        group: the ranks.
        places: of the weights.
    """

    group: dist.ProcessGroup
    places: tuple[Place, ...]
    _parts: list[Tensor] = field(default_factory=list)

    def watch(self, module: nn.Module) -> None:
        """Gathers before each pass of the module, and puts the parts back afterward, also after an error."""
        module.register_forward_pre_hook(self.gather, prepend=True)
        module.register_forward_hook(self.put_back, always_call=True)

    def gather(self, *_: Any) -> None:
        """Puts whole weights in the place of the parts."""
        self._parts = [_standing(place) for place in self.places]
        whole = gathered(self._parts, [place.rows for place in self.places], self.group)
        for number, (place, tensor) in enumerate(zip(self.places, whole, strict=True)):
            place.module._parameters[place.name] = tensor  # type: ignore[assignment]
            KNOWN.add(tensor, Gathered(tuple(self._parts), self, number))

    def put_back(self, *_: Any) -> None:
        """Puts the parts back."""
        for place, part in zip(self.places, self._parts, strict=True):
            place.module._parameters[place.name] = part  # type: ignore[assignment]
        self._parts = []

    def again(self, parts: tuple[Tensor, ...], number: int) -> Tensor:
        """The whole tensor of one of the places, gathered once more."""
        place = self.places[number]
        with torch.no_grad():
            (whole,) = gathered([parts[number].detach()], [place.rows], self.group)
        return whole


def _standing(place: Place) -> Tensor:
    part = place.module._parameters[place.name]
    assert part is not None
    return part


def gathered(parts: list[Tensor], rows: list[int], group: dist.ProcessGroup) -> list[Tensor]:
    """Whole tensors from the parts of all ranks, by one all-gather. Its derivative is a sum over the ranks.

    Args:
        parts: this rank's rows of each tensor, as `torch.chunk` deals them out.
        rows: number of rows of each whole tensor.
        group: the ranks.
    """
    ranks = dist.get_world_size(group)
    most = [-(-length // ranks) for length in rows]
    padded = [
        torch.cat([part, part.new_zeros(length - len(part), *part.shape[1:])]).flatten()
        for part, length in zip(parts, most, strict=True)
    ]
    together = AllGather.apply(torch.cat(padded), group)
    columns = together.split([len(part) for part in padded], dim=1)
    return [
        # a copy, which alone tells by its memory which tensor it is
        column.reshape(ranks * length, *part.shape[1:])[:total].clone()
        for column, part, length, total in zip(columns, parts, most, rows, strict=True)
    ]


class AllGather(torch.autograd.Function):
    """(n,) on each rank -> (ranks, n) on all. Its transpose is `ReduceScatter`."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:  # noqa: D102
        ctx.group = group
        agree(group, own.device)
        found = own.new_empty(dist.get_world_size(group) * len(own))
        ALL_GATHER(found, own.contiguous(), group=group)
        return found.view(-1, len(own))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:  # noqa: D102
        return ReduceScatter.apply(slopes[0], ctx.group), None


class ReduceScatter(torch.autograd.Function):
    """(ranks, n) on each rank -> (n,): the sum over the ranks of each one's row. Its transpose is `AllGather`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup) -> Tensor:  # noqa: D102
        ctx.group = group
        agree(group, rows.device)
        own = rows.new_empty(rows.shape[1])
        REDUCE_SCATTER(own, rows.flatten(), group=group)
        return own

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:  # noqa: D102
        return AllGather.apply(slopes[0], ctx.group), None


@dataclass(frozen=True)
class Gathered:
    """From which parts a whole tensor was gathered."""

    parts: tuple[Tensor, ...]
    unit: Unit
    number: int

    @property
    def entries(self) -> int:
        """The number of entries of the whole tensor."""
        return self.unit.places[self.number].rows * self.parts[self.number][:1].numel()


@dataclass
class KnownStorages:
    """Which memory holds gathered weights."""

    _found: dict[int, tuple[StorageWeakRef, Gathered]] = field(default_factory=dict)

    def add(self, tensor: Tensor, gathered: Gathered) -> None:
        """Remembers a tensor, as long as its memory is in use."""
        self._found = {key: each for key, each in self._found.items() if not each[0].expired()}
        reference = StorageWeakRef(tensor.untyped_storage())
        self._found[reference.cdata] = (reference, gathered)

    def alive(self) -> int:
        """The number of gathered entries in memory."""
        kept = [gathered for reference, gathered in self._found.values() if not reference.expired()]
        return sum(gathered.entries for gathered in kept)

    def find(self, tensor: Tensor) -> Gathered | None:
        """How to gather a tensor, or the one that it is a view of, again."""
        found = self._found.get(tensor.untyped_storage()._cdata)
        return None if found is None or found[0].expired() else found[1]


KNOWN = KnownStorages()


def keeps_no_gathered_weights(model: nn.Module) -> AbstractContextManager[None]:
    """A context in which autograd keeps parts in the place of gathered weights; of a copy by `copy_of_parts`."""
    hooks = (hook for module in model.modules() for hook in module._forward_pre_hooks.values())
    is_copy = any(isinstance(getattr(hook, "__self__", None), Unit) for hook in hooks)
    return _gathering_again() if is_copy else nullcontext()


@contextmanager
def _gathering_again() -> Iterator[None]:
    def pack(tensor: Tensor) -> Any:
        known = KNOWN.find(tensor)
        return tensor if known is None else (known, tensor.size(), tensor.stride(), tensor.storage_offset())

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        known, size, stride, offset = packed
        whole = known.unit.again(known.parts, known.number)
        KNOWN.add(whole, known)
        return whole.as_strided(size, stride, offset)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
