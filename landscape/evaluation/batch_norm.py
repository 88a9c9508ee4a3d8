"""Statistics of BatchNorm at other weights than those at which training computed them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.data.batches import Batch, copied_to, digest_of, in_precision, rows_of, samples_in
from landscape.data.gathered import gathered
from landscape.loss.objective import Objective
from landscape.model.copies import copied
from landscape.model.weights import with_weights

CALIBRATION_SAMPLES = 2048


class BatchStatistics:
    """Computes running means and variances anew at other weights, from one batch of inputs.

    All inputs pass through the model as one batch, and each layer normalizes by this batch as in training. So the
    result does not depend on how the data are cut into chunks. It needs the memory of one forward pass of the batch.

    Args:
        objective: its model is recalibrated.
        calibration: the inputs, the same on all ranks. If not given, about `CALIBRATION_SAMPLES` inputs of the
            objective at most, evenly spaced; of several ranks as many from each as its share of the samples.

    Attributes:
        model: a copy, in which each BatchNorm normalizes by the batch.
        samples: number of inputs in the batch.

    Raises:
        ValueError: the model has no BatchNorm statistics, there are fewer than two inputs, or ranks have other inputs.
    """

    def __init__(self, objective: Objective, calibration: Batch | None = None) -> None:
        self._objective = objective
        with objective.exclusive:
            self.model = copied("model", objective.model)
        norms = {name: module for name, module in self.model.named_modules() if keeps_statistics(module)}
        if not norms:
            raise ValueError(
                "batch_norm: the model has no BatchNorm statistics to recalibrate; take 'eval', which is the same"
            )
        for module in norms.values():
            module.train()
            # the new statistics replace the old ones
            module.momentum = 1.0
        if calibration is None:
            calibration = evenly_spaced(objective)
        elif len(set(objective.ranks.gathered(digest_of(calibration)))) > 1:
            raise ValueError(
                "calibration: the ranks have other inputs, so that their statistics would differ; give all ranks the "
                "same, or none: then each gives its share"
            )
        self.samples = samples_in(calibration) or 0
        if self.samples < 2:
            raise ValueError(f"calibration: statistics need at least 2 inputs, got {self.samples}")
        self._inputs = in_precision(copied_to(calibration, objective.device), objective.dtype)
        self._names = [f"{name}.{kind}" for name in norms for kind in ("running_mean", "running_var")]

    def at(self, theta: Tensor) -> dict[str, Tensor]:
        """The statistics by name, at the weights `theta`."""
        buffers = self._fresh_buffers()
        weights, inputs = self._objective.unflatten(theta), copied_to(self._inputs, theta.device)
        with_weights(self.model, {**weights, **buffers}, lambda model: self._objective.run(model, inputs))
        return {name: buffers[name] for name in self._names}

    def _fresh_buffers(self) -> dict[str, Tensor]:
        """Copies of the buffers, because the pass changes them."""
        return {name: buffer.clone() for name, buffer in self.model.named_buffers()}


def evenly_spaced(objective: Objective) -> Batch:
    """About `CALIBRATION_SAMPLES` inputs of the objective at most; of each rank's as many as its share, on all ranks.

    Raises:
        ValueError: the data are streamed, or cannot be cut.
    """
    with objective.ranks.together():
        own = _evenly_spaced(objective, CALIBRATION_SAMPLES / objective.n_samples)
    return gathered(own, objective.ranks)


def _evenly_spaced(objective: Objective, share: float) -> Batch:
    """This share of this rank's inputs, at most all of them."""
    if not objective.chunks.is_uniform:
        raise ValueError(
            "calibration: must be given where the data are streamed, or batches that cannot be cut: inputs from which "
            "the statistics are computed"
        )
    samples = objective.chunks.samples
    rows = torch.linspace(0, samples - 1, math.ceil(samples * min(1.0, share)), device="cpu")
    return rows_of(objective.inputs, rows.long().unique())


def keeps_statistics(module: torch.nn.Module) -> bool:
    """Whether a module normalizes by running statistics."""
    return isinstance(module, _BatchNorm) and module.track_running_stats
