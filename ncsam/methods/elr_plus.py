"""ELR+: early-learning regularization with two networks, weight averages and mixup (Liu et al. 2020)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot, softmax

from ncsam.methods.mixtures import Mixture
from ncsam.methods.plain_loss import check_plain_cross_entropy, check_that_all_have_labels
from ncsam.methods.requirements import Requirements
from ncsam.methods.training_loss import LossFunction
from ncsam.methods.training_set import GRADIENTS_OF_A_FORWARD_PASS
from ncsam.methods.two_networks import TwoNetworks
from ncsam.methods.weight_average import WeightAverage
from ncsam.options import check_at_least, check_below_1, check_not_negative, check_positive, check_share
from ncsam.random_state import generator_from

SMALLEST = 1e-4
"""Probabilities are kept that far from 0 and 1."""


class ELRPlus(TwoNetworks):
    """Two networks, each with the targets that the average of the other one's weights gives.

    The loss of a network on mixed inputs with mixed labels y is cross-entropy + lambda log(1 - <p, q>), where q are the
    remembered targets t of the samples, mixed alike, and t <- beta t + (1 - beta) p' with the prediction p' of the
    other network's averaged weights for the inputs as they are. The decay of the averaged weights grows as a sigmoid.
    The mean outputs of both averages are the prediction. Source: arXiv:2007.00151, section 4; the details are those of
    the authors' code.

    In the authors' code each network sees the samples in an order of its own; here both learn from the same batches,
    mixed differently. If a batch holds a sample twice, one of its two predictions moves t. The optimizer must be over
    `method.parameters()`. `fit()` sets `progress` and calls `after_step()`.

    Args:
        model: in training mode, with outputs (batch, classes).
        loss_fn: plain cross-entropy; the method makes its own loss of the outputs.
        peer: the second network, of the same architecture with other initial weights.
        samples: size of the training set.
        seed: of the mixtures.
        strength: lambda; 3 for CIFAR-10 (7 for CIFAR-100).
        momentum: beta; 0.7 for CIFAR-10 (0.9 for CIFAR-100).
        mixing: alpha of the Beta distribution of the mixtures; 1.
        decay: of the averages in the end; 0.997.
        ramp: share of the training in which the decay grows; 40,000 of 78,200 steps.

    Raises:
        ValueError: the loss is not plain cross-entropy, the peer is the model, or `strength`, `momentum`, `mixing`,
            `decay` or `ramp` is out of range.
    """

    requires = Requirements(peer=True, mixable_inputs=True, classes=True, one_process=True)
    equal_peer = "warned of"
    predicts_by_several = True

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        *,
        peer: nn.Module,
        samples: int,
        seed: int,
        strength: float = 3.0,
        momentum: float = 0.7,
        mixing: float = 1.0,
        decay: float = 0.997,
        ramp: float = 0.5,
    ) -> None:
        super().__init__(model, loss_fn, peer=peer)
        check_plain_cross_entropy(loss_fn, "ELRPlus")
        check_at_least("samples", samples, 1)
        check_at_least("seed", seed, 0)
        check_not_negative("strength", strength)
        check_below_1("momentum", momentum)
        check_positive("mixing", mixing)
        check_below_1("decay", decay)
        check_share("ramp", ramp)
        self.samples, self.seed = samples, seed
        self.strength, self.momentum, self.mixing = strength, momentum, mixing
        self.decay, self.ramp = decay, ramp
        self.steps = 0
        self.averages = [
            WeightAverage(passes.module, moves_buffers=False) for passes in (self.passes, self.peer)
        ]
        self.targets: list[Tensor] = []

    def known_samples(self) -> int | None:
        """The size of the training set."""
        return self.samples

    def predictors(self) -> list[nn.Module]:
        """The averages of both."""
        return [average.network for average in self.averages]

    def decay_now(self) -> float:
        """The decay of the averages in this epoch."""
        if self.ramp == 0:
            return self.decay
        left = 1 - min(self.known_progress() / self.ramp, 1.0)
        return self.decay * math.exp(-5 * left**2)

    def after_step(self) -> None:
        """Moves the averages."""
        for average, passes in zip(self.averages, (self.passes, self.peer), strict=True):
            average.follow(passes.module, self.decay_now())

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient of each network's loss to its `.grad`, and moves the targets of the batch."""
        indices = self.known_positions(indices, "remembers single samples")
        check_that_all_have_labels(self.loss_fn, targets, "ELRPlus")
        self.check_whole_batch("mixes the samples of a batch and takes it whole")
        self.known_progress()
        self.share_precision()
        generator = generator_from(self.seed, self.steps)
        self.steps += 1
        losses = []
        for number, passes in enumerate((self.passes, self.peer)):
            mixture = Mixture.drawn(inputs, self.mixing, generator)
            outputs = passes.outputs(passes.model, mixture.of(inputs), indices, first=True)
            remembered = self._remember(number, inputs, indices)
            labels = one_hot(targets, outputs.shape[1]).to(outputs)
            loss = elr_plus_loss(outputs, mixture.of(labels), mixture.of(remembered), self.strength)
            passes.backward_of(loss)
            losses.append(loss.detach())
        self.passes.sample_gradients += len(targets)
        self.gradient_count += 2 * GRADIENTS_OF_A_FORWARD_PASS
        return losses[0]

    @torch.no_grad()
    def _remember(self, number: int, inputs: Tensor, indices: Tensor) -> Tensor:
        """Moves the targets of these samples for a network, by the average of the other one; returns the targets."""
        teacher = self.averages[1 - number].network.train()
        p = softmax(self.passes.forward(teacher, inputs), 1)
        if not self.targets:
            self.targets = [p.new_zeros(self.samples, p.shape[1]) for _ in self.averages]
        before = self.targets[number][indices]
        after = torch.where(p.isnan(), before, self.momentum * before + (1 - self.momentum) * p)
        self.targets[number][indices] = after
        return after

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume: second network, averages, targets and steps."""
        return {
            **super().state_dict(),
            "averages": [average.network.state_dict() for average in self.averages],
            "targets": self.targets,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        super().load_state_dict(state)
        for average, stored in zip(self.averages, state["averages"], strict=True):
            average.network.load_state_dict(stored)
        self.targets, self.steps = state["targets"], state["steps"]


def elr_plus_loss(outputs: Tensor, labels: Tensor, remembered: Tensor, strength: float) -> Tensor:
    """The mean of -<y, log p> + lambda log(1 - <q, p>).

    Args:
        outputs: (batch, classes), logits.
        labels: (batch, classes), probabilities of the mixed labels.
        remembered: (batch, classes), q.
        strength: lambda.
    """
    entropy = -(labels * log_softmax(outputs, 1)).sum(1).mean()
    agreement = (remembered * softmax(outputs, 1).clamp(SMALLEST, 1 - SMALLEST)).sum(1)
    return entropy + strength * torch.log1p(-agreement).mean()
