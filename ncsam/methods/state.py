"""State that forward passes move, put back as it was: each pass of a step computes the same function.

Such state is what a module keeps from pass to pass: buffers, weights of an encoder that follows the trained one, a
hidden state, the place in a queue, a running mean of the loss. What a first pass sets up is state too: hooks, buffers
and parts, with the attribute that says that they are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from operator import is_
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ncsam.methods.containers import is_as_it_was, refill
from ncsam.methods.moving_tensors import MovingTensors
from ncsam.methods.rebound_names import Rebound, rebound_by, rebound_by_methods
from ncsam.methods.set_up import SetUp

OF_ALL_MODULES = frozenset(vars(nn.Module()))
"""Attributes that every module has; parameters, buffers, parts and hooks among them are looked at by themselves."""
MODE = "training"
"""The attribute that a method itself may change between the passes of a step."""
UNCHANGEABLE = frozenset({bool, int, float, complex, str, bytes, type(None)})
BY_THE_BATCH = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
"""Layers that in training mode write their statistics and do not read them."""
WRAPPERS = ("torch.nn.parallel", "torch.distributed", "torch._dynamo", "torch.fx")
"""Where modules are from whose attributes are torch's own affair."""
MOST_ENTRIES = 10_000
"""Entries of a list or dict up to which its contents are kept; longer ones are tables that no pass changes."""
MOST_COPIES = 4
"""How many times as many numbers as are trained are kept aside; more are only watched."""
SMALL = 1 << 20
"""Numbers that are kept aside, however few are trained."""


@dataclass(eq=False)
class State:
    """The state of modules and other objects at one time.

    Objects of the caller's own types among the attributes are put back, but what changes within them is not. Large
    tensors are copied in some steps only. If a pass first writes to one in another step, the second pass of that step
    begins with what the first pass wrote.
    """

    tables: list[tuple[MutableMapping[str, Any], dict[str, Any]]] = field(default_factory=list)
    containers: list[tuple[Any, Any]] = field(default_factory=list)
    arrays: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    registered: list[tuple[MutableMapping[str, Any], str, Any]] = field(default_factory=list)
    copies: list[tuple[Tensor, int, Tensor]] = field(default_factory=list)
    watched: list[tuple[Tensor, int, int]] = field(default_factory=list)
    still: list[tuple[Tensor, int, Tensor]] = field(default_factory=list)
    moving: MovingTensors = field(default_factory=MovingTensors)
    set_up: SetUp = field(default_factory=SetUp)

    @classmethod
    def of(
        cls, model: nn.Module, others: Sequence[Any], moving: MovingTensors, *, is_read: bool = False
    ) -> State:
        """The state now.

        Args:
            model: whose trainable weights are no state; nor is what shares their memory.
            others: modules and objects that passes call beside the model.
            moving: what is known of large tensors; one that no pass has moved is not copied.
            is_read: whether only state that a pass reads is wanted, without the statistics of BatchNorm.
        """
        found = cls(moving=moving)
        walk = _Walk(found, is_read=is_read)
        own = list(model.modules())
        weights = [weight for module in own for weight in module._parameters.values() if weight is not None]
        trained = [weight for weight in weights if weight.requires_grad and not is_lazy(weight)]
        found.set_up.weights = {id(weight): weight for weight in weights}
        walk.memory = {parameter.untyped_storage().data_ptr() for parameter in trained}
        walk.seen = {id(module) for module in own}
        for module in own:
            walk.look_at_module(module, is_own=True)
        for other in others:
            walk.look_at(other)
        walk.keep_tensors(max(SMALL, MOST_COPIES * sum(parameter.numel() for parameter in trained)))
        return found

    @torch.no_grad()
    def restore(self) -> None:
        """Puts everything back that has changed since."""
        for table, kept in self.tables:
            if not _is_same_table(table, kept):
                _put_back(table, kept)
        self.set_up.restore()
        for container, entries in self.containers:
            refill(container, entries)
        for array, entries in self.arrays:
            if not np.array_equal(array, entries):
                np.copyto(array, entries)
        for registry, name, value in self.registered:
            # a forward pass may have put another tensor or number in its place
            if name not in registry or registry[name] is not value:
                registry[name] = value
        for tensor, place, numbers in self.copies:
            # through `.data`, so that no graph takes the tensor for changed
            if _place(tensor) != place or tensor.shape != numbers.shape:
                tensor.data = numbers.clone()
            elif not _is_known_to_equal(tensor, numbers):
                tensor.data.copy_(numbers)
        for tensor, _, alias in self.still:
            # what was written in place for the first time stays as it is in this step
            if tensor.data_ptr() != alias.data_ptr():
                tensor.data = alias

    @torch.no_grad()
    def note_moves(self) -> None:
        """Takes down which large tensors have moved since; a copy that stayed is needed no longer."""
        for tensor, place, numbers in self.copies:
            if not self.moving.is_known_to_move(tensor):
                moved = _place(tensor) != place or not has_same_numbers(tensor, numbers)
                self.moving.note(tensor, moved=moved)
        self.copies = [each for each in self.copies if self.moving.is_known_to_move(each[0])]
        self.note_moves_of_still()

    def note_moves_of_still(self) -> None:
        """Takes down which tensors have moved since that were not copied."""
        for tensor, version, alias in self.still:
            if _has_moved(tensor, version, alias):
                self.moving.note(tensor, moved=True)

    def check_watched(self) -> None:
        """Raises ValueError if a tensor changed that is too large to be kept aside in each step."""
        for tensor, version, place in self.watched:
            if tensor._version != version or tensor.data_ptr() != place:
                raise ValueError(
                    f"model: a tensor of shape {tuple(tensor.shape)} that is not trained, such as a frozen parameter "
                    "or labels, changes in forward passes, and there are too many such tensors to keep them aside "
                    "while the method looks at other weights; register it by register_buffer, change it after "
                    "optimizer.step(), or let a loss that writes to it take a clone"
                )

    def has_been_added_to(self) -> bool:
        """Whether hooks, buffers, parts or attributes have come since, or attributes that were None have a value."""
        return self.set_up.has_changed() or any(
            not _is_same_table(table, kept)
            and any(kept.get(key) is None and value is not None for key, value in table.items())
            for table, kept in self.tables
        )

    def change(self) -> str | None:
        """What has changed since, in words; None if nothing has."""
        for table, kept in self.tables:
            for key in (table.keys() | kept.keys()) - OF_ALL_MODULES:
                if key not in table or key not in kept or not _is_same_value(table[key], kept[key]):
                    return f"the attribute {key!r}"
        if self.set_up.has_changed():
            return "a hook or a part"
        for container, entries in self.containers:
            if not is_as_it_was(container, entries, _is_same_value):
                return f"a {type(container).__name__} among the attributes"
        for array, entries in self.arrays:
            if not np.array_equal(array, entries, equal_nan=array.dtype.kind in "fc"):
                return "an array among the attributes"
        for registry, name, value in self.registered:
            if name not in registry or not _is_same_value(registry[name], value):
                return f"the {'tensor' if isinstance(value, Tensor) else 'name'} {name!r}"
        for tensor, place, numbers in self.copies:
            if _place(tensor) != place or not has_same_numbers(tensor, numbers):
                return f"a tensor of shape {tuple(tensor.shape)}"
        for tensor, version, alias in self.still:
            if _has_moved(tensor, version, alias):
                return f"a tensor of shape {tuple(tensor.shape)}"
        return None


@dataclass(eq=False)
class _Walk:
    """A walk through modules, their attributes, and the containers among these."""

    found: State
    is_read: bool
    seen: set[int] = field(default_factory=set)
    memory: set[int] = field(default_factory=set)
    tensors: list[Tensor] = field(default_factory=list)

    def look_at(self, value: Any) -> None:
        """Keeps a value as far as its type is known."""
        if type(value) in UNCHANGEABLE or id(value) in self.seen:
            return
        self.seen.add(id(value))
        if isinstance(value, Tensor):
            self._look_at_tensor(value)
        elif isinstance(value, nn.Module):
            for module in value.modules():
                if module is value or id(module) not in self.seen:
                    self.seen.add(id(module))
                    self.look_at_module(module, is_own=False)
        elif isinstance(value, FunctionType):
            self._look_at_names(rebound_by(value))
            # state that a function keeps for its next call
            self._look_at_all(value.__defaults__ or ())
            self.look_at_table(vars(value))
        elif isinstance(value, np.ndarray):
            if value.flags.writeable and value.size <= SMALL and not value.dtype.hasobject:
                self.found.arrays.append((value, value.copy()))
        elif isinstance(value, tuple):
            self._look_at_all(value)
        elif isinstance(value, list | set | deque | dict) and len(value) <= MOST_ENTRIES:
            self.found.containers.append((value, dict(value) if isinstance(value, dict) else list(value)))
            self._look_at_all(list(value.values()) if isinstance(value, dict) else value)

    def look_at_module(self, module: nn.Module, *, is_own: bool) -> None:
        """Keeps the buffers, the weights that are not trained, and the attributes of a module.

        Args:
            module: without its parts.
            is_own: whether it is a part of the model, so that its trainable weights are trained.
        """
        writes_only = type(module).__module__.startswith("torch.nn.") and isinstance(module, BY_THE_BATCH)
        if not (self.is_read and writes_only and module.training):
            for name, buffer in module._buffers.items():
                if buffer is not None and not is_lazy(buffer):
                    self.found.registered.append((module._buffers, name, buffer))
                    self._keep(buffer)
        for name, parameter in module._parameters.items():
            if parameter is not None and not (is_own and parameter.requires_grad):
                self.found.registered.append((module._parameters, name, parameter))
                self.look_at(parameter)
        if not isinstance(module, torch.jit.ScriptModule) and not type(module).__module__.startswith(
            WRAPPERS
        ):
            self.look_at_table(vars(module))
            self._look_at_names(rebound_by_methods(type(module)))
            self.found.set_up.note(module)

    def look_at_table(self, table: MutableMapping[str, Any]) -> None:
        """Keeps the attributes of an object."""
        kept = dict(table)
        self.found.tables.append((table, kept))
        for key, value in kept.items():
            # most attributes are numbers, or what all modules have
            if type(value) not in UNCHANGEABLE and key not in OF_ALL_MODULES:
                self.look_at(value)

    def keep_tensors(self, most: int) -> None:
        """Copies the smallest of the tensors that were found, `most` numbers of them, and watches the others."""
        for tensor in sorted(self.tensors, key=Tensor.numel):
            most -= tensor.numel()
            if most >= 0:
                self._keep(tensor)
            else:
                self.found.watched.append((tensor, tensor._version, tensor.data_ptr()))

    def _look_at_names(self, rebound: Rebound) -> None:
        for table, names in rebound:
            for name in names:
                if name in table:
                    self.found.registered.append((table, name, table[name]))
                    self.look_at(table[name])

    def _look_at_all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.look_at(value)

    def _look_at_tensor(self, tensor: Tensor) -> None:
        # what has a graph is the result of a pass, and no pass writes to it
        is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
        is_kept = is_plain and tensor.is_leaf and not tensor.is_inference() and not tensor.is_meta
        if is_kept and not self._is_trained(tensor) and torch._debug_has_internal_overlap(tensor) != 1:
            self.tensors.append(tensor)

    def _keep(self, tensor: Tensor) -> None:
        if self._is_trained(tensor):
            return
        if self.found.moving.is_still(tensor) and tensor.layout == torch.strided:
            self.found.still.append((tensor, tensor._version, tensor.detach()))
        else:
            self.found.copies.append((tensor, _place(tensor), tensor.detach().clone()))

    def _is_trained(self, tensor: Tensor) -> bool:
        return tensor.layout == torch.strided and tensor.untyped_storage().data_ptr() in self.memory


def _is_same_table(table: MutableMapping[str, Any], kept: dict[str, Any]) -> bool:
    """Whether nothing in a table is another object. Thousands of attributes are compared in each step."""
    return (
        len(table) == len(kept) and all(map(is_, table.values(), kept.values())) and list(table) == list(kept)
    )


def _put_back(table: MutableMapping[str, Any], kept: dict[str, Any]) -> None:
    for key in [key for key in table if key not in kept]:
        del table[key]
    for key, value in kept.items():
        if key != MODE and (key not in table or table[key] is not value):
            table[key] = value


def _place(tensor: Tensor) -> int:
    """The address of a tensor's numbers; 0 for sparse tensors, which have several."""
    return tensor.data_ptr() if tensor.layout == torch.strided else 0


def _is_known_to_equal(tensor: Tensor, numbers: Tensor) -> bool:
    # to look at numbers on a GPU would wait for it
    is_comparable = tensor.device.type == "cpu" and tensor.layout == torch.strided
    return is_comparable and torch.equal(tensor, numbers)


def _is_same_value(now: Any, then: Any) -> bool:
    """Whether two values are the same object, or equal ones of a type that is known."""
    if now is then:
        return True
    if type(now) is not type(then):
        return False
    if isinstance(now, Tensor):
        return has_same_numbers(now, then)
    if isinstance(now, tuple):
        return len(now) == len(then) and all(map(_is_same_value, now, then))
    # NaN is not equal to itself
    return type(now) in UNCHANGEABLE and (now == then or (now != now and then != then))


def has_same_numbers(now: Tensor, then: Tensor) -> bool:
    """Whether tensors are equal, where NaN equals NaN."""
    # what is left of a pass that was mapped over samples has no numbers
    if any(torch._C._functorch.is_functorch_wrapped_tensor(each) for each in (now, then)):
        return False
    if now.shape != then.shape or now.device != then.device or now.dtype != then.dtype:
        return False
    if torch.equal(now, then):
        return True
    is_whole = not (now.is_floating_point() or now.is_complex()) or now.layout != torch.strided
    return not is_whole and bool(((now == then) | ((now != now) & (then != then))).all())


def _has_moved(tensor: Tensor, version: int, alias: Tensor) -> bool:
    return tensor._version != version or tensor.data_ptr() != alias.data_ptr()
