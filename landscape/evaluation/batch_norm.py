"""BatchNorm's statistics at weights other than those that training left them for."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.loss.objective import Objective

CALIBRATION_SAMPLES = 2048


class BatchStatistics:
    """Recomputes the running means and variances at given weights, from one batch of inputs.

    All inputs go through as one batch, each layer normalized by its own batch as in training; the result does
    not depend on how the data are cut into chunks, and needs the memory of one forward pass of the batch.

    Args:
        objective: whose model.
        calibration: the inputs; at most `CALIBRATION_SAMPLES` of the objective's own, evenly spaced, if not
            given.

    Attributes:
        samples: inputs in the batch.

    Raises:
        ValueError: a model without BatchNorm statistics, or fewer than two inputs.
    """

    def __init__(self, objective: Objective, calibration: Tensor | None = None) -> None:
        self._objective = objective
        with objective.exclusive:
            self._model = copy.deepcopy(objective.model)
        norms = {name: module for name, module in self._model.named_modules() if keeps_statistics(module)}
        if not norms:
            raise ValueError(
                "batch_norm: the model has no BatchNorm statistics to recalibrate; take 'eval', which is the same"
            )
        for module in norms.values():
            module.train()
            # the new statistics replace the old ones
            module.momentum = 1.0
        if calibration is None:
            count = len(objective.inputs)
            rows = torch.linspace(0, count - 1, min(count, CALIBRATION_SAMPLES)).long().unique()
            calibration = objective.inputs[rows.to(objective.inputs.device)]
        if len(calibration) < 2:
            raise ValueError(f"calibration: statistics need at least 2 inputs, got {len(calibration)}")
        self._inputs = calibration.to(objective.device)
        if self._inputs.is_floating_point():
            self._inputs = self._inputs.to(objective.dtype)
        self.samples = len(calibration)
        self._names = [f"{name}.{kind}" for name in norms for kind in ("running_mean", "running_var")]

    def at(self, theta: Tensor) -> dict[str, Tensor]:
        """The statistics by name, with the weights `theta`."""
        buffers = self._fresh_buffers()
        weights = self._objective.unflatten(theta)
        functional_call(self._model, {**weights, **buffers}, (self._inputs.clone(),))
        return {name: buffers[name] for name in self._names}

    def outputs(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """The model's outputs with the weights `theta`, each layer normalized by this batch of inputs."""
        weights = {**self._objective.unflatten(theta), **self._fresh_buffers()}
        result: Tensor = functional_call(self._model, weights, (inputs,))
        return result

    def _fresh_buffers(self) -> dict[str, Tensor]:
        """Copies, as the pass moves them."""
        return {name: buffer.clone() for name, buffer in self._model.named_buffers()}


def keeps_statistics(module: torch.nn.Module) -> bool:
    """Whether a module normalizes by running statistics of its own."""
    return isinstance(module, _BatchNorm) and module.track_running_stats
