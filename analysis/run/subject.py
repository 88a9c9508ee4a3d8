"""A trained model that is measured: its objectives, and what several measures share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from analysis.objectives import LABEL_WORDS, objective_of
from analysis.plan.run_config import RunConfig
from analysis.plan.seeds import derived_seed
from analysis.plan.study import MeasureSettings
from analysis.run.run_data import RunData
from landscape import Objective, TopEigenvalues, filter_normalized_directions, top_eigenvalues

LOSSES = ("observed", "clean", "test")
"""The mean cross-entropy of training samples with observed labels, with true labels, and that of test samples."""
TRAINING_LOSSES = tuple(LABEL_WORDS)

R = TypeVar("R")


def subset(count: int, samples: int, seed: int) -> Tensor:
    """Positions of at most `samples` of `count` samples, drawn without replacement, ascending."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed), device="cpu")
    return order[:samples].sort().values


@dataclass(frozen=True)
class Subject:
    """A trained model that is measured.

    Attributes:
        model: the model with its trained weights.
        config: configuration of its run, with the settings of the measures.
        data: data of its run.
    """

    model: nn.Module
    config: RunConfig
    data: RunData

    @property
    def settings(self) -> MeasureSettings:
        """The settings of the measures."""
        if self.config.measure is None:
            raise ValueError("measure: a run of the selection is not measured")
        return self.config.measure

    @property
    def seed(self) -> int:
        """The seed of probes, start vectors and directions."""
        return derived_seed(self.config, "measurement")

    @cached_property
    def samples(self) -> dict[str, Tensor]:
        """Data set -> positions of the measured samples, which are the same for every method."""
        return {
            name: subset(
                len(split), self.settings.samples, derived_seed(self.config, f"measured {name} samples")
            )
            for name, split in (("train", self.data.train), ("test", self.data.held_out))
        }

    @property
    def is_wrong(self) -> Tensor:
        """Whether each measured training sample has a wrong label."""
        return self.data.labels.take(self.samples["train"]).is_wrong

    @cached_property
    def objectives(self) -> dict[str, Objective]:
        """Name of each of `LOSSES` -> the mean cross-entropy on the measured samples.

        All methods are measured with the same loss, so that their landscapes can be compared: it is not the training
        loss of a method with another loss, with smoothed labels or with weight decay. If all observed labels are the
        true ones, both objectives of training samples are one.
        """
        train, labels = (
            self.data.train.take(self.samples["train"]),
            self.data.labels.take(self.samples["train"]),
        )
        test = self.data.held_out.take(self.samples["test"])
        observed = objective_of(self.model, (train.inputs, labels.observed))
        return {
            "observed": observed,
            "clean": objective_of(self.model, (observed.inputs, labels.clean))
            if labels.is_wrong.any()
            else observed,
            "test": objective_of(self.model, (test.inputs, test.targets)),
        }

    def of_training_losses(self, measured: Callable[[str], R]) -> dict[str, R]:
        """Name of each of `TRAINING_LOSSES` -> what is measured of this loss; once if both are one objective."""
        found: dict[Objective, R] = {}
        for name in TRAINING_LOSSES:
            objective = self.objectives[name]
            if objective not in found:
                found[objective] = measured(name)
        return {name: found[self.objectives[name]] for name in TRAINING_LOSSES}

    @cached_property
    def eigenpairs(self) -> dict[str, TopEigenvalues]:
        """Name of each of `TRAINING_LOSSES` -> the largest eigenvalues of its Hessian, with their vectors."""
        return self.of_training_losses(
            lambda name: top_eigenvalues(
                self.objectives[name],
                self.settings.eigenvalues,
                tol=self.settings.eigenvalue_tol,
                seed=self.seed,
            )
        )

    @cached_property
    def directions(self) -> Any:
        """The two directions of lines and planes, the same draw for every model."""
        return filter_normalized_directions(self.objectives["observed"], 2, seed=0)
