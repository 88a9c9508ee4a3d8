"""PES: progressive early stopping, layer by layer (Bai et al. 2021, arXiv:2106.15853)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from ncsam.methods.batches import can_learn_from, rows_of
from ncsam.methods.frozen_weights import frozen
from ncsam.methods.method import Method
from ncsam.methods.plain_loss import check_plain_cross_entropy
from ncsam.methods.rank_means import has_ranks
from ncsam.methods.requirements import Requirements
from ncsam.methods.training_loss import LossFunction
from ncsam.methods.training_set import TrainingSet
from ncsam.options import check_at_least, check_share
from ncsam.random_state import borrowed_generators

MOST_WEIGHT = 3.0
"""Largest weight of a class, as in the authors' code."""


class Resettable(Protocol):
    """A layer of torch that can draw new first weights."""

    def reset_parameters(self) -> None:
        """Draws new first weights from the global generator."""


class PES(Method):
    """Trains earlier layers longer than later ones, then learns from the confident samples.

    Later layers are the first to fit wrong labels. So the whole network is trained in the share `first` of the
    training; then the last `latter` layers begin anew and are trained alone in the share `second`; then the last layer
    alone in the share `third`. From there on all layers learn from the samples whose label the network predicts, found
    anew before each epoch, with weights that make the classes count alike. Source: Algorithm 1 of the paper (without
    its semi-supervised part), the class weights from the authors' code.

    In the authors' code, new layers are trained by Adam with a learning rate of their own (1e-4); here one optimizer
    trains all, and forgets what it remembers of the former weights of a layer that begins anew.

    `fit()` sets `progress` and `epoch_share`, and calls `before_epoch()`. In a loop of your own, set
    `method.epoch_share = 1 / epochs` once, and at the start of each epoch set `method.progress = epoch / epochs` and
    call `method.before_epoch(TrainingSet(..., optimizer=optimizer))`.

    Args:
        model: in training mode, with outputs (batch, classes).
        loss_fn: plain cross-entropy.
        first: share of the training of the whole network; 25 of 200 epochs for CIFAR-10.
        second: share of the training of the last layers; 7 epochs.
        third: share of the training of the last layer; 5 epochs.
        latter: how many layers with weight matrices are trained in the second part, fewer than the model has; the
            authors cut before the last block. Normalization layers go with the layer that they follow.

    Attributes:
        weights: (classes,), weights of the classes; None before samples are chosen.
        is_confident: bool (n,), the samples whose label is predicted; None before.

    Raises:
        ValueError: the loss is not plain cross-entropy, a setting is out of range, or the model has too few layers that
            can begin anew.
    """

    requires = Requirements(classes=True, one_process=True)

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        *,
        first: float = 0.125,
        second: float = 0.035,
        third: float = 0.025,
        latter: int = 2,
    ) -> None:
        if isinstance(model, DistributedDataParallel) and not has_ranks(model):
            # it would wait for the gradients of layers that are not trained now, and one process needs no average
            model = model.module
        super().__init__(model, loss_fn)
        check_plain_cross_entropy(loss_fn, "PES")
        for name, share in (("first", first), ("second", second), ("third", third)):
            check_share(name, share)
        if first + second + third >= 1:
            raise ValueError(f"third: first + second + third must be below 1, got {first + second + third}")
        layers = resettable_layers(self.passes.module)
        check_at_least("latter", latter, 1)
        if latter >= len(layers):
            raise ValueError(
                f"latter: must be below the number of the model's layers with weight matrices and reset_parameters(), "
                f"which is {len(layers)}, because the former layers keep what they learned; got {latter}"
            )
        self.shares = {"first": first, "second": second, "third": third}
        self.ends = (first, first + second, first + second + third)
        self.latter = layers[-latter:]
        self.prepared_for: float | None = None
        self.weights: Tensor | None = None
        self.is_confident: Tensor | None = None

    def part(self, progress: float) -> int:
        """The part of the training: 0 the whole network, 1 the last layers, 2 the last layer, 3 confident samples."""
        # the guard keeps 0.1 + 0.2 from being more than 0.3
        return sum(progress > end + 1e-9 for end in self.ends)

    def trained_alone(self) -> list[nn.Module] | None:
        """The layers that are trained alone in this epoch; None if all are trained."""
        layers = {1: self.latter, 2: self.latter[-1:]}.get(self.part(self.known_progress()))
        return None if layers is None else [module for layer in layers for module in layer]

    def before_epoch(self, train: TrainingSet) -> None:
        """Lets the layers that are trained alone begin anew, or finds the confident samples.

        Raises:
            ValueError: a part of the training has no epoch, or the optimizer is needed and was not given.
        """
        progress = self.known_progress()
        self._check_epochs()
        self.prepared_for = progress
        alone = self.trained_alone()
        if alone is not None and self.part(progress - self.epoch_share) < self.part(progress):
            self._begin_anew(alone, train)
        if self.part(progress) == len(self.ends):
            outputs = train.outputs(self.passes.module)
            self.gradient_count += train.gradients_of_a_pass
            self.is_confident = outputs.argmax(1) == train.observed
            self.weights = class_weights(train.observed[self.is_confident], outputs.shape[1]).to(outputs)

    def _check_epochs(self) -> None:
        """Without an epoch in each part the method would silently be another one."""
        if self.epoch_share <= 0:
            raise ValueError("epoch_share: PES counts epochs; set method.epoch_share = 1 / epochs")
        epochs = round(1 / self.epoch_share)
        trained = {self.part(epoch / epochs) for epoch in range(1, epochs + 1)}
        for part, (name, share) in enumerate(self.shares.items()):
            if share > 0 and part not in trained:
                raise ValueError(
                    f"{name}: the share {share} of {epochs} epochs holds no whole epoch; give a larger share, or 0 to "
                    "leave this part out"
                )

    def _begin_anew(self, layers: list[nn.Module], train: TrainingSet) -> None:
        if train.optimizer is None:
            raise ValueError(
                "optimizer: PES lets layers begin anew, whose old momentum must go; give it to TrainingSet"
            )
        with borrowed_generators(next(self.model.parameters()).device, train.seed):
            for layer in layers:
                cast(Resettable, layer).reset_parameters()
                for weight in layer.parameters():
                    train.optimizer.state.pop(weight, None)

    def known_samples(self) -> int | None:
        """The size of the training set, once samples are chosen."""
        return None if self.is_confident is None else len(self.is_confident)

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient of the layers that are trained now; none if too few samples are confident."""
        alone, part = self.trained_alone(), self.part(self.known_progress())
        if part > 0 and self.prepared_for != self.progress:
            raise ValueError(
                "before_epoch: PES lets layers begin anew and chooses samples there; call it before each epoch"
            )
        if part < len(self.ends):
            with self._only(alone):
                return self.passes.backward(inputs, targets, indices, moves_statistics=True)
        indices = self.known_positions(indices, "chooses single samples")
        assert self.is_confident is not None
        assert self.weights is not None
        self.check_whole_batch("divides by the weights of a whole batch")
        rows = self.is_confident[indices].nonzero().flatten()
        if not can_learn_from(self.model, rows) or not self.weights[targets[rows]].any():
            return torch.zeros((), device=targets.device)
        outputs = self.passes.outputs(self.passes.model, rows_of(inputs, rows), indices[rows], first=True)
        loss = cross_entropy(outputs, targets[rows], self.weights.to(outputs))
        self.passes.backward_of(loss)
        return loss.detach()

    def _only(self, layers: list[nn.Module] | None) -> AbstractContextManager[None]:
        """Inside the block only the weights of these layers require a gradient; all of them for None."""
        if layers is None:
            return nullcontext()
        kept = {id(weight) for layer in layers for weight in layer.parameters()}
        return frozen([w for w in self.model.parameters() if w.requires_grad and id(w) not in kept])


def resettable_layers(model: nn.Module) -> list[list[nn.Module]]:
    """The layers with weight matrices that can draw new weights, each with the normalization layers that follow it."""
    layers: list[list[nn.Module]] = []
    for module in model.modules():
        if not hasattr(module, "reset_parameters"):
            continue
        if any(weight.ndim >= 2 for weight in module.parameters(recurse=False)):
            layers.append([module])
        elif layers:
            layers[-1].append(module)
    return layers


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """(classes,): the mean number of samples of a class over that of this class, at most 3; 0 if it has none.

    Args:
        labels: int64 (m,).
        classes: how many there are.
    """
    counts = torch.bincount(labels, minlength=classes).double()
    return torch.where(counts > 0, counts.mean() / counts, 0.0).clamp(max=MOST_WEIGHT)
