"""DivideMix: labels that a mixture model finds wrong are guessed by two networks (Li et al. 2020, arXiv:2002.07394)."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, one_hot, softmax

from ncsam.methods.mixtures import Mixture
from ncsam.methods.passes import Passes
from ncsam.methods.plain_loss import check_plain_cross_entropy, check_that_all_have_labels
from ncsam.methods.requirements import Requirements
from ncsam.methods.training_loss import LossFunction
from ncsam.methods.training_set import GRADIENTS_OF_A_FORWARD_PASS, TrainingSet
from ncsam.methods.two_networks import TwoNetworks
from ncsam.options import check_at_least, check_not_negative, check_positive, check_share
from ncsam.random_state import generator_from
from ncsam.training_modes import in_evaluation_mode


class DivideMix(TwoNetworks):
    """Two networks. The losses of each say how probably a label is right, and the other network learns accordingly.

    Before each epoch after the warm-up, a Gaussian mixture of two components is fitted to the losses of each network on
    all samples. A sample whose chance of the component of small losses is above `threshold`, by the other network,
    keeps its label, refined by the network's own prediction. Other samples get the mean prediction of both networks.
    For that the network is in training mode, and the other in evaluation mode.
    Both are sharpened and mixed with each other (MixMatch); the guessed ones count by a squared distance of weight
    lambda. Source: Algorithm 1 and Eq. 3 to 12; the details are those of the authors' code. The mean outputs of both
    networks are the prediction.

    In the authors' code each step takes as many samples with kept as with guessed labels, twice augmented. Here a step
    divides the batch that it is given, augmented once, so that an epoch is one pass over the samples as for other
    methods. Their warm-up penalizes confident predictions where the noise is asymmetric; here it is the ordinary
    gradient. The optimizer must be over `method.parameters()`. `fit()` sets `progress` and calls `before_epoch()`.

    Args:
        model: in training mode, with outputs (batch, classes).
        loss_fn: plain cross-entropy; the method makes its own loss of the outputs.
        peer: the second network, of the same architecture with other initial weights.
        seed: of the mixtures.
        weight: lambda of the guessed labels; in the paper 0 to 150 by data set and noise rate, 25 for CIFAR-10
            with 50%.
        threshold: a label is kept if its chance of being right is larger; 0.5 (0.6 for 90% noise).
        temperature: of the sharpening; 0.5.
        mixing: alpha of the Beta distribution of the mixtures; 4.
        ramp: share of the training in which lambda grows from 0; 16 of 300 epochs.
        warmup: share of the training with ordinary gradients; 10 of 300 epochs for CIFAR-10.

    Raises:
        ValueError: the loss is not plain cross-entropy, the peer is the model, or `weight`, `threshold`,
            `temperature`, `mixing`, `ramp` or `warmup` is out of range.
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
        seed: int,
        weight: float = 25.0,
        threshold: float = 0.5,
        temperature: float = 0.5,
        mixing: float = 4.0,
        ramp: float = 0.053,
        warmup: float = 0.033,
    ) -> None:
        super().__init__(model, loss_fn, peer=peer, warmup=warmup)
        check_plain_cross_entropy(loss_fn, "DivideMix")
        check_at_least("seed", seed, 0)
        check_not_negative("weight", weight)
        check_share("threshold", threshold)
        check_share("ramp", ramp)
        check_positive("mixing", mixing)
        if not 0 < temperature <= 1:
            raise ValueError(f"temperature: must be above 0 and at most 1, got {temperature}")
        self.seed = seed
        self.weight, self.threshold, self.temperature = weight, threshold, temperature
        self.mixing, self.ramp = mixing, ramp
        self.steps = 0
        self.chances: list[Tensor] = []

    def predictors(self) -> list[nn.Module]:
        """Both networks."""
        return [self.passes.module, self.peer.module]

    def before_epoch(self, train: TrainingSet) -> None:
        """Finds, by the losses of each network, how probably each label is right."""
        if self.is_warming_up():
            return
        check_that_all_have_labels(self.loss_fn, train.observed, "DivideMix")
        self.chances = []
        for network in self.predictors():
            losses = cross_entropy(train.outputs(network), train.observed, reduction="none")
            self.chances.append(chances_of_small(losses, train.seed).to(losses.device))
            self.gradient_count += train.gradients_of_a_pass

    def known_samples(self) -> int | None:
        """The size of the training set, once it is divided."""
        return len(self.chances[0]) if self.chances else None

    def weight_now(self) -> float:
        """lambda in this epoch: it grows linearly after the warm-up."""
        done = self.known_progress() - self.epoch_share - self.warmup
        return self.weight if self.ramp == 0 else self.weight * min(max(done / self.ramp, 0.0), 1.0)

    def fill_warmup_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the ordinary gradient to the `.grad` of both networks."""
        self.share_precision()
        self.passes.sample_gradients += len(targets)
        self.peer.backward(inputs, targets, indices, moves_statistics=True)
        return self.passes.backward(inputs, targets, indices, moves_statistics=True)

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient of each network's loss to its `.grad`."""
        indices = self.known_positions(indices, "knows single samples")
        if not self.chances:
            raise ValueError("before_epoch: DivideMix divides the samples there; call it before each epoch")
        check_that_all_have_labels(self.loss_fn, targets, "DivideMix")
        self.check_whole_batch("mixes the samples of a batch and takes it whole")
        self.share_precision()
        generator = generator_from(self.seed, self.steps)
        self.steps += 1
        losses = []
        both = (self.passes, self.peer)
        for number, passes in enumerate(both):
            chances = self.chances[1 - number][indices]
            kept = chances > self.threshold
            # samples with kept labels first
            order = torch.cat([kept.nonzero().flatten(), (~kept).nonzero().flatten()])
            learned = self._learned(passes, both[1 - number], inputs, targets, chances, kept)[order]
            mixture = Mixture.drawn(inputs, self.mixing, generator)
            outputs = passes.outputs(passes.model, mixture.of(inputs[order]), indices, first=True)
            loss = dividemix_loss(outputs, mixture.of(learned), int(kept.sum()), self.weight_now())
            passes.backward_of(loss)
            losses.append(loss.detach())
        self.passes.sample_gradients += len(targets)
        return losses[0]

    @torch.no_grad()
    def _learned(
        self, own: Passes, other: Passes, inputs: Tensor, targets: Tensor, chances: Tensor, kept: Tensor
    ) -> Tensor:
        """(batch, classes): refined labels where they are kept, guesses of both networks elsewhere; sharpened."""
        # as in the authors' code, where one network is trained and the other rests
        predicted = [self._predicted(own, inputs)]
        with in_evaluation_mode(other.module):
            predicted.append(self._predicted(other, inputs))
        self.gradient_count += (1 + (~kept).float().mean().item()) * GRADIENTS_OF_A_FORWARD_PASS
        w = chances.to(predicted[0]).unsqueeze(1)
        labels = one_hot(targets, predicted[0].shape[1]).to(predicted[0])
        refined = w * labels + (1 - w) * predicted[0]
        guessed = (predicted[0] + predicted[1]) / 2
        sharp = torch.where(kept.unsqueeze(1), refined, guessed) ** (1 / self.temperature)
        return sharp / sharp.sum(1, keepdim=True)

    def _predicted(self, passes: Passes, inputs: Tensor) -> Tensor:
        with passes.unmoved():
            return softmax(passes.forward(passes.module, inputs), 1)

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume: second network and steps."""
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`. How probably labels are right is found anew before the next epoch."""
        super().load_state_dict(state)
        self.steps = state["steps"]


def chances_of_small(losses: Tensor, seed: int) -> Tensor:
    """float64 (n,): how probably each loss belongs to the smaller of two Gaussian components.

    Losses that are all equal, or not all finite, say nothing, and have the chance 1.

    Raises:
        ImportError: scikit-learn is missing.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise ImportError("DivideMix: needs scikit-learn: pip install 'ncsam[detect]'") from error
    spread = (losses.max() - losses.min()).item()
    if not 0 < spread < float("inf"):
        return torch.ones(len(losses), dtype=torch.float64, device="cpu")
    scaled = ((losses - losses.min()) / spread).double().cpu().numpy()[:, None]
    mixture = GaussianMixture(
        n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        # ten iterations are those of the paper
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(scaled)
    smaller = int(mixture.means_.flatten().argmin())
    return torch.from_numpy(mixture.predict_proba(scaled)[:, smaller])


def dividemix_loss(outputs: Tensor, learned: Tensor, kept: int, weight: float) -> Tensor:
    """Cross-entropy of the first `kept` rows, weighted squared distance of the others, and the balance of classes.

    Args:
        outputs: (batch, classes), logits.
        learned: (batch, classes), probabilities to learn.
        kept: number of rows with kept labels.
        weight: lambda.
    """
    p = softmax(outputs, 1)
    mean = p.mean(0)
    # sum_c 1/C log((1/C) / mean_c)
    loss = -(mean * len(mean)).log().mean()
    if kept:
        loss = loss - (learned[:kept] * log_softmax(outputs[:kept], 1)).sum(1).mean()
    if kept < len(outputs):
        loss = loss + weight * (p[kept:] - learned[kept:]).square().mean()
    return loss
