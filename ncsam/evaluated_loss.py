"""The training loss where it only measures: it learns nothing from the labels that it is shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ncsam.methods.method import Method
from ncsam.methods.moving_tensors import MovingTensors
from ncsam.methods.state import OF_ALL_MODULES, UNCHANGEABLE, State
from ncsam.methods.training_loss import remembers_samples
from ncsam.random_state import borrowed_generators

DEEPEST = 4
"""How deep objects are followed that hold each other, from the loss on."""
MOST_PARTS = 100
"""Parts of a list or dict up to which these are followed; longer ones are data."""


def measure_of(method: Method) -> Any:
    """The training loss; cross-entropy in place of a loss that remembers samples, because it knows no held-out ones."""
    return nn.CrossEntropyLoss() if remembers_samples(method.loss_fn) else method.loss_fn


@contextmanager
def loss_at_rest(method: Method, device: torch.device) -> Iterator[Callable[..., Any]]:
    """A block with `measure_of` a method, in evaluation mode. A loss may take gradients by itself.

    Afterward the loss has its former mode and state, and torch's generators stand where they stood. State is what the
    loss holds as a module, as an object, or in a closure, also within further objects. What it keeps in a file, or
    rebinds by `global` and `nonlocal`, moves.

    Raises:
        ValueError: tensors moved that are too large to be kept aside.
    """
    loss_fn = measure_of(method)
    if loss_fn is not method.loss_fn:
        yield loss_fn
        return
    held = list(_held_by(loss_fn, set()))
    modules = [part for each in held if isinstance(each, nn.Module) for part in each.modules()]
    modes = [(module, module.training) for module in modules]
    draws = [(each, each.get_state()) for each in held if isinstance(each, torch.Generator)]
    before = State.of(method.passes.module, held, MovingTensors())
    try:
        for module in modules:
            module.training = False
        with borrowed_generators(device):
            yield loss_fn
    finally:
        before.restore()
        for module, mode in modes:
            module.training = mode
        for generator, state in draws:
            generator.set_state(state)
    before.check_watched()


def _held_by(value: Any, seen: set[int], depth: int = 0) -> Iterator[Any]:
    """The modules, attributes, containers, tensors and generators of a loss, and of the objects that it holds."""
    if depth > DEEPEST or id(value) in seen or type(value) in UNCHANGEABLE:
        return
    seen.add(id(value))
    parts: list[Any] = []
    if isinstance(value, Tensor | torch.Generator):
        yield value
    elif isinstance(value, nn.Module):
        yield value
        tables = [vars(module) for module in value.modules()]
        parts = [part for table in tables for key, part in table.items() if key not in OF_ALL_MODULES]
    elif isinstance(value, FunctionType):
        parts = [] if str(value.__module__).startswith("torch.") else _held_by_function(value)
    elif isinstance(value, MethodType):
        parts = [value.__func__, value.__self__]
    elif isinstance(value, partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, list | tuple | set | deque | dict):
        yield value
        parts = list(value.values()) if isinstance(value, dict) else list(value)
        parts = parts if len(parts) < MOST_PARTS else []
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, type | ModuleType):
        # State keeps tables of attributes as it keeps dicts, and looks into no object by itself
        yield vars(value)
        parts = list(vars(value).values())
    for part in parts:
        yield from _held_by(part, seen, depth + 1)


def _held_by_function(function: FunctionType) -> list[Any]:
    """What a function finds in its closure, its defaults, its attributes, and under global names of its file."""
    named = [function.__globals__.get(name) for name in function.__code__.co_names]
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), vars(function), *named]
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not yet filled
            continue
    return held
