"""What a first pass sets up in modules: hooks of every kind, buffers, frozen weights, parts and classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress
from operator import is_, itemgetter, not_
from typing import Any

from torch import nn

from ncsam.methods.containers import refill

containers_of = itemgetter(
    *(name for name, value in vars(nn.Module()).items() if isinstance(value, dict | set))
)
"""The containers in which every module keeps its hooks, buffers, parameters and parts, from its attributes."""


@dataclass(eq=False)
class SetUp:
    """The hooks and members of modules at one time. Thousands are looked at in each step.

    Attributes:
        modules: those that are looked at.
        classes: theirs, which a parametrization replaces.
        empty: their containers that had no entry.
        filled: their other containers, each with its entries.
        parameters: their parameters.
        gradient_hooks: for each parameter the dict of the hooks on its gradient and its entries; None where it has had
            no hook.
        weights: the parameters of the model, by their ids.
    """

    modules: list[nn.Module] = field(default_factory=list)
    classes: list[type[nn.Module]] = field(default_factory=list)
    empty: list[Any] = field(default_factory=list)
    filled: list[tuple[Any, Any]] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)
    gradient_hooks: list[tuple[Any, Any] | None] = field(default_factory=list)
    weights: dict[int, nn.Parameter] = field(default_factory=dict)

    def note(self, module: nn.Module) -> None:
        """Keeps the class, the hooks and the members of a module."""
        self.modules.append(module)
        self.classes.append(type(module))
        containers = containers_of(vars(module))
        self.empty += compress(containers, map(not_, containers))
        self.filled += [(container, container.copy()) for container in containers if container]
        for parameter in module._parameters.values():
            if parameter is not None:
                hooks = parameter._backward_hooks
                self.parameters.append(parameter)
                self.gradient_hooks.append(None if hooks is None else (hooks, hooks.copy()))

    def restore(self) -> None:
        """Puts everything back that has changed since."""
        if not self._has_same_classes():
            for module, kind in zip(self.modules, self.classes, strict=True):
                module.__class__ = kind
        if any(self.empty):
            for container in self.empty:
                container.clear()
        for container, entries in self.filled:
            refill(container, entries)
        for parameter, kept in zip(self.parameters, self.gradient_hooks, strict=True):
            if kept is not None:
                refill(*kept)
            hooks = None if kept is None else kept[0]
            if parameter._backward_hooks is not hooks:
                parameter._backward_hooks = hooks

    def has_changed(self) -> bool:
        """Whether hooks, members or classes have come or are gone, or members that were None have a value."""
        return (
            any(self.empty)
            or any(not _has_same_names(*each) for each in self.filled)
            or not self._has_same_classes()
            or any(
                (parameter._backward_hooks or {}).keys() != (kept[1] if kept else {}).keys()
                for parameter, kept in zip(self.parameters, self.gradient_hooks, strict=True)
            )
        )

    def is_repeated(self) -> bool:
        """Whether a pass that began where the pass at w began has left as many hooks and members as that one."""
        return (
            not any(self.empty)
            and all(len(container) == len(entries) for container, entries in self.filled)
            and all(
                len(parameter._backward_hooks or {}) == len(kept[1] if kept else {})
                for parameter, kept in zip(self.parameters, self.gradient_hooks, strict=True)
            )
        )

    def check_weights(self, model: nn.Module) -> None:
        """Raises ValueError if a pass made weights that require gradients, which no perturbation could have moved."""
        made = [
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and id(parameter) not in self.weights
        ]
        if made:
            raise ValueError(
                f"model: a forward pass made new weights to train ({', '.join(map(repr, made[:3]))}), which the method "
                "and the optimizer do not know; run the model once first, model(inputs), and make the optimizer of "
                "the parameters that it has then"
            )

    def _has_same_classes(self) -> bool:
        return all(map(is_, map(type, self.modules), self.classes))


def _has_same_names(container: Any, entries: Any) -> bool:
    if isinstance(container, set):
        return bool(container == entries)
    if len(container) == len(entries) and all(map(is_, container.values(), entries.values())):
        # nearly always
        return True
    return container.keys() == entries.keys() and not any(
        old is None and container[name] is not None for name, old in entries.items()
    )
