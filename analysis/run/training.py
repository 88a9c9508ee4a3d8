"""The training of a run, from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analysis.plan.choice import method_part
from analysis.plan.run_config import RunConfig
from analysis.plan.seeds import derived_seed
from analysis.plan.study import TrainingSettings
from analysis.run.run_data import RunData
from ncsam import (
    METHODS,
    Augmentation,
    CheckpointError,
    History,
    Method,
    Plain,
    build_loss,
    build_method,
    build_model,
    build_schedule,
    estimated_transition,
    fit,
    in_fastest_layout,
    predict,
)
from ncsam.probes import Probe

OnEpoch = Callable[[int, int], None]
"""Called with (epochs done, epochs in all)."""


def new_model(config: RunConfig, data: RunData, purpose: str) -> nn.Module:
    """A network of the run's architecture. `purpose` selects the seed of its initial weights."""
    model = build_model(
        config.model.name,
        data.dataset.input_shape,
        data.dataset.num_classes,
        seed=derived_seed(config, purpose),
        **config.model.options,
    )
    return in_fastest_layout(model.to(data.device))


SECOND_BETA = 0.999
"""AdamW averages the squared gradients with this decay."""


@dataclass(frozen=True)
class Training:
    """The training of one run.

    Attributes:
        config: configuration of the run.
        data: data of the run, on the device of the training.
        fingerprint: digest of configuration, choice and data. A checkpoint with another one is refused.
    """

    config: RunConfig
    data: RunData
    fingerprint: str

    def method(self, model: nn.Module, transition: Tensor, hyperparameters: dict[str, Any]) -> Method:
        """The run's method with its loss, for a model."""
        config, data, settings = self.config, self.data, self.config.method
        loss_fn = build_loss(
            settings.loss.name,
            samples=len(data.train),
            classes=data.dataset.num_classes,
            transition=transition.float(),
            seed=derived_seed(config, "loss"),
            **settings.loss_options(hyperparameters),
        ).to(data.device)
        peer = None
        if METHODS[settings.name].requires.peer:
            peer = self._compiled(new_model(config, data, "peer's weights"))
        method = build_method(
            settings.name,
            self._compiled(model),
            loss_fn,
            seed=derived_seed(config, "method"),
            clean_targets=data.labels.clean,
            peer=peer,
            **method_part(hyperparameters),
        )
        return self._configured(method)

    def estimated_transition(self, checkpoint: Path, on_epoch: OnEpoch) -> tuple[Tensor, float]:
        """The transition matrix from a network trained with cross-entropy, and the number of gradients spent."""
        model = new_model(self.config, self.data, "weights of the estimate")
        method = self._configured(Plain(self._compiled(model), nn.CrossEntropyLoss()))
        self.fit(method, checkpoint, on_epoch)
        return estimated_transition(predict(model, self.data.train).softmax(1)), method.gradient_count

    def fit(
        self, method: Method, checkpoint: Path, on_epoch: OnEpoch, probes: Sequence[Probe] = ()
    ) -> History:
        """Trains a method. A checkpoint with the same fingerprint is resumed."""
        settings = self.config.training
        epochs = settings.epochs
        optimizer = _optimizer(settings, method)
        augmentation = Augmentation(settings.crop, settings.flip, settings.cutout)

        def train_or_resume() -> History:
            return fit(
                method,
                optimizer,
                self.data.train,
                self.data.labels,
                self.data.held_out,
                epochs=epochs,
                batch_size=settings.batch_size,
                seed=derived_seed(self.config, "order"),
                scheduler=build_schedule(
                    **settings.schedule.model_dump(), optimizer=optimizer, epochs=epochs
                ),
                redraw=self.config.noise.redraw,
                augmentation=augmentation if augmentation != Augmentation() else None,
                mixup_alpha=self.config.method.mixup,
                max_gradient_norm=settings.max_gradient_norm,
                alignment_batches=settings.alignment_batches if self.config.purpose == "final" else 0,
                probes=probes,
                checkpoint=checkpoint,
                fingerprint=self.fingerprint,
                on_epoch=lambda epoch, *_: on_epoch(epoch, epochs),
            )

        try:
            return train_or_resume()
        except CheckpointError:
            # a power failure may have broken the checkpoint; the run is then trained from its start
            checkpoint.unlink()
            return train_or_resume()

    def _compiled(self, model: nn.Module) -> nn.Module:
        return torch.compile(model) if self.config.training.compile else model  # type: ignore[return-value]

    def _configured(self, method: Method) -> Method:
        if self.config.training.precision == "bfloat16":
            method.passes.autocast_dtype = torch.bfloat16
        return method


def _optimizer(settings: TrainingSettings, method: Method) -> torch.optim.Optimizer:
    rate, decay, momentum = settings.learning_rate, settings.weight_decay, settings.momentum
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            method.parameters(), lr=rate, betas=(momentum, SECOND_BETA), weight_decay=decay
        )
    return torch.optim.SGD(method.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
