"""Tensors that a method keeps from one step to the next, one for each trainable parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ncsam.methods.perturbation import trainable_parameters


class ByParameter:
    """Tensors by parameter, so that none is taken for that of another one after layers were frozen or replaced.

    In a run the parameter itself tells, and after a resume its name.
    """

    def __init__(self) -> None:
        self._of: list[nn.Parameter] = []
        self._loaded: Mapping[str, Tensor] | list[Tensor] = {}
        self.tensors: list[Tensor] = []

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return bool(self.tensors or self._loaded)

    def keep(self, module: nn.Module, tensors: list[Tensor]) -> None:
        """Keeps a tensor for each trainable parameter of a module, in their order, and forgets the earlier ones."""
        self._of, self.tensors, self._loaded = trainable_parameters(module), tensors, {}

    def forget(self) -> None:
        """Keeps nothing."""
        self._of, self.tensors, self._loaded = [], [], {}

    def of(self, module: nn.Module) -> list[Tensor | None]:
        """What is kept for each trainable parameter of a module; None for a parameter that had no turn."""
        parameters = trainable_parameters(module)
        if self._loaded:
            self._find_loaded(module, parameters)
        known = {id(parameter): kept for parameter, kept in zip(self._of, self.tensors, strict=True)}
        return [known.get(id(parameter)) for parameter in parameters]

    def _find_loaded(self, module: nn.Module, parameters: list[nn.Parameter]) -> None:
        """Gives the tensors of a checkpoint to the parameters of their names.

        Raises:
            ValueError: an earlier version did not store names, and other parameters require a gradient.
        """
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        loaded = self._loaded
        if not isinstance(loaded, Mapping):
            if [each.shape for each in loaded] != [each.shape for each in parameters]:
                raise ValueError(
                    "model: other parameters require a gradient than in the checkpoint, which an earlier version wrote "
                    "without their names; freeze the same layers before the method's load_state_dict"
                )
            loaded = {names[id(each)]: kept for each, kept in zip(parameters, loaded, strict=True)}
        known = {name: parameter for name, parameter in module.named_parameters() if name in loaded}
        self._of, self.tensors, self._loaded = list(known.values()), [loaded[name] for name in known], {}

    def state_dict(self, module: nn.Module) -> dict[str, Tensor]:
        """The tensors by the names of their parameters."""
        if isinstance(self._loaded, list):
            self.of(module)
        if isinstance(self._loaded, Mapping) and self._loaded:
            return dict(self._loaded)
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        pairs = zip(self._of, self.tensors, strict=True)
        return {names[id(parameter)]: kept for parameter, kept in pairs if id(parameter) in names}

    def load_state_dict(self, state: Any) -> None:
        """Restores a `state_dict()`. Earlier versions stored a list in the order of the parameters, or None."""
        self.forget()
        self._loaded = state or {}
