"""Losses that resist label noise, as baselines. The defaults are those of the papers.

Every loss is (outputs, targets) -> mean over the samples, in nat where the paper has logarithms. Outputs are logits
(batch, classes), targets int64 (batch,). ELR and SLN also take the positions of the samples in the training set. A
sample with the label -100 has none, and does not count, as in torch's cross-entropy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, one_hot, softmax

from ncsam.counted_mean import mean_over
from ncsam.options import (
    Registry,
    check_at_least,
    check_below_1,
    check_not_negative,
    check_share,
)
from ncsam.plain_numbers import with_plain_numbers
from ncsam.random_state import generator_from


@with_plain_numbers
def cross_entropy_loss(*, label_smoothing: float = 0.0) -> nn.CrossEntropyLoss:
    """Cross-entropy, whose labels may be smoothed over all classes (Szegedy et al. 2016, section 7).

    Raises:
        ValueError: the smoothing is outside [0, 1].
    """
    check_share("label_smoothing", label_smoothing)
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing)


class MeanOverLabels(nn.Module):
    """A loss that is the mean over the samples whose label is not `ignore_index`; NaN if no sample has a label.

    Whoever cuts batches weighs the parts by their labels, because of `counts_labels`.
    """

    ignore_index = -100
    counts_labels = True

    def _has_label(self, targets: Tensor) -> Tensor:
        """Whether each sample counts.

        Raises:
            ValueError: the targets are no classes.
        """
        if targets.is_floating_point():
            raise ValueError(
                f"targets: {type(self).__name__} takes classes, not mixed ones; mix with cross-entropy"
            )
        return targets != self.ignore_index


class GeneralizedCrossEntropy(MeanOverLabels):
    """GCE, (1 - p_y^q) / q (Zhang and Sabuncu 2018, arXiv:1805.07836, Eq. 6).

    Args:
        q: in (0, 1]. Near 0 the loss is cross-entropy, at 1 the mean absolute error; the paper has 0.7.
    """

    @with_plain_numbers
    def __init__(self, *, q: float = 0.7) -> None:
        super().__init__()
        if not 0 < q <= 1:
            raise ValueError(f"q: must be above 0 and at most 1, got {q}")
        self.q = q

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        counts = self._has_label(targets)
        log_p = -cross_entropy(outputs, targets, reduction="none")
        return mean_over(-torch.expm1(self.q * log_p), counts) / self.q


class SymmetricCrossEntropy(MeanOverLabels):
    """SCE, alpha CE + beta RCE (Wang et al. 2019, arXiv:1908.06112, Eq. 7).

    In the reverse cross-entropy A replaces log 0, so that it is -A (1 - p_y).

    Args:
        alpha: weight of cross-entropy; 0.1 in the paper for CIFAR-10 (6 for CIFAR-100).
        beta: weight of the reverse cross-entropy; 1 for CIFAR-10 (0.1 for CIFAR-100).
        log_zero: A; -4 for both in the paper.
    """

    @with_plain_numbers
    def __init__(self, *, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0) -> None:
        super().__init__()
        for name, weight in (("alpha", alpha), ("beta", beta)):
            check_not_negative(name, weight)
        if not float("-inf") < log_zero < 0:
            raise ValueError(f"log_zero: must be negative and finite, got {log_zero}")
        self.alpha = alpha
        self.beta = beta
        self.log_zero = log_zero

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        counts = self._has_label(targets)
        log_p = -cross_entropy(outputs, targets, reduction="none")
        return mean_over(-self.alpha * log_p + self.beta * self.log_zero * torch.expm1(log_p), counts)


class ConfidencePenalty(MeanOverLabels):
    """Cross-entropy - strength * entropy of the predictions (Pereyra et al. 2017, arXiv:1701.06548, section 3).

    The loss rewards unsure predictions.

    Args:
        strength: weight of the entropy, beta in the paper, which takes 0.1 for images.
    """

    @with_plain_numbers
    def __init__(self, *, strength: float = 0.1) -> None:
        super().__init__()
        check_not_negative("strength", strength)
        self.strength = strength

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        counts = self._has_label(targets)
        log_p = log_softmax(outputs, 1)
        # a probability that underflows has no entropy, where 0 times an infinite logarithm would be NaN
        entropy = -(log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(1)
        return cross_entropy(outputs, targets) - self.strength * mean_over(entropy, counts)


class ForwardCorrection(MeanOverLabels):
    """Cross-entropy of the observed labels' distribution, -log (T^T p)_y (Patrini et al. 2017, Theorem 2).

    Args:
        transition: (classes, classes); row i, column j is the probability that class i is labeled j. It is known, or
            estimated by `estimated_transition`.

    Raises:
        ValueError: the transition is no square matrix with rows that sum to 1.
    """

    transition: Tensor

    def __init__(self, transition: Tensor) -> None:
        super().__init__()
        if transition.ndim != 2 or transition.shape[0] != transition.shape[1]:
            raise ValueError(f"transition: must be (classes, classes), got {tuple(transition.shape)}")
        sums = transition.sum(1)
        if (transition < 0).any() or not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            raise ValueError("transition: rows must be probabilities that sum to 1")
        self.register_buffer("transition", transition)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        counts = self._has_label(targets)
        # log sum_i p_i T_iy is computed in logarithms, because a small p underflows; brackets would take -1 for a class
        columns = self.transition.to(outputs).log().T
        log_column = columns.index_select(0, targets.where(counts, 0))
        return mean_over(-(log_softmax(outputs, 1) + log_column).logsumexp(1), counts)


@with_plain_numbers
def estimated_transition(probabilities: Tensor, *, quantile: float = 0.97) -> Tensor:
    """The transition matrix, from the predictions of a network that was trained on the noisy labels.

    Row i is the prediction for the sample that looks most like class i. So that no outlier decides, that is the sample
    at the `quantile` of p_i. Source: Patrini et al. 2017, Eq. 12-13.

    Args:
        probabilities: (n, classes), the network's predictions on the training inputs.
        quantile: 0.97 in the paper for CIFAR-10; 1.0, the largest, for CIFAR-100.

    Returns:
        float64 (classes, classes), rows that sum to 1.
    """
    check_share("quantile", quantile)
    if probabilities.ndim != 2 or len(probabilities) == 0:
        raise ValueError(f"probabilities: must be (n, classes), got {tuple(probabilities.shape)}")
    p = probabilities.detach().cpu().double()
    rank = min(int(quantile * len(p)), len(p) - 1)
    anchors = p.argsort(dim=0, stable=True)[rank]
    rows = p[anchors]
    return rows / rows.sum(1, keepdim=True)


class EarlyLearningRegularization(MeanOverLabels):
    """ELR, cross-entropy + lambda log(1 - <p, t>), with t the remembered predictions (Liu et al. 2020).

    Source: arXiv:2007.00151, Eq. 6 and 9. `remember` moves each sample's t <- beta t + (1 - beta) p once a step, at the
    unperturbed weights, so that sharpness-aware methods may use the loss too. If a batch holds a sample twice, one of
    its two predictions moves t.

    Args:
        samples: size of the training set.
        classes: number of classes.
        strength: lambda; 3 in the paper for CIFAR-10 (7 for CIFAR-100).
        momentum: beta; 0.7 in the paper for CIFAR-10 (0.9 for CIFAR-100).
    """

    targets: Tensor

    @with_plain_numbers
    def __init__(self, samples: int, classes: int, *, strength: float = 3.0, momentum: float = 0.7) -> None:
        super().__init__()
        _check_table(samples, classes)
        check_not_negative("strength", strength)
        check_below_1("momentum", momentum)
        self.strength = strength
        self.momentum = momentum
        self.register_buffer("targets", torch.zeros(samples, classes))

    known_samples = property(lambda self: len(self.targets), doc="Size of the training set.")

    @torch.no_grad()
    def remember(self, outputs: Tensor, indices: Tensor) -> None:
        """Moves the remembered predictions of these samples."""
        p = _clamped(outputs)
        p = (p / p.sum(1, keepdim=True)).to(self.targets)
        before = self.targets[indices]
        # a scaler skips the step of a pass that overflowed; its outputs must not be remembered either
        self.targets[indices] = torch.where(
            p.isnan(), before, self.momentum * before + (1 - self.momentum) * p
        )

    def forward(self, outputs: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """The mean loss; `indices` are the samples' positions in the training set."""
        counts = self._has_label(targets)
        agreement = (self.targets[indices].to(outputs) * _clamped(outputs)).sum(1)
        return cross_entropy(outputs, targets) + self.strength * mean_over(torch.log1p(-agreement), counts)


class StochasticLabelNoise(MeanOverLabels):
    """SLN, cross-entropy with labels y + sigma z, z ~ N(0, I) (Chen et al. 2021, section 3).

    ICLR 2021, "Noise against noise: stochastic label noise helps combat inherent label noise". z is drawn anew once
    a step, for each sample and class, so that a sharpness-aware method sees the same noisy labels at w and at
    w + perturbation. A sample that a batch holds twice has one z there. The paper's moving average of the weights and
    its label correction are not part of the loss.

    Args:
        samples: size of the training set.
        classes: number of classes.
        seed: seed of the draws.
        sigma: size of the noise; 1 in the paper for CIFAR-10 with symmetric noise, 0.5 with asymmetric and
            instance-dependent noise, 0.2 for CIFAR-100.
    """

    noise: Tensor

    @with_plain_numbers
    def __init__(self, samples: int, classes: int, seed: int = 0, *, sigma: float = 1.0) -> None:
        super().__init__()
        _check_table(samples, classes)
        check_at_least("seed", seed, 0)
        check_not_negative("sigma", sigma)
        self.sigma = sigma
        self.seed = seed
        self.draws = 0
        self.rank = 0
        self.register_buffer("noise", torch.zeros(samples, classes))

    known_samples = property(lambda self: len(self.noise), doc="Size of the training set.")

    def draw_as_rank(self, rank: int) -> None:
        """Draws as the process of this number from now on; without it as process 0."""
        self.rank = rank

    @torch.no_grad()
    def remember(self, outputs: Tensor, indices: Tensor) -> None:
        """Draws the noise of these samples for the step that begins."""
        of_rank = [self.rank] if self.rank else []
        generator = generator_from(self.seed, self.draws, *of_rank)
        drawn = torch.randn(len(outputs), self.noise.shape[1], generator=generator, device="cpu")
        self.noise[indices] = drawn.to(self.noise, non_blocking=True)
        self.draws += 1

    def forward(self, outputs: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """The mean loss; `indices` are the samples' positions in the training set."""
        counts = self._has_label(targets)
        labels = one_hot(targets.where(counts, 0), outputs.shape[1])
        noisy = labels + self.sigma * self.noise[indices].to(outputs)
        return mean_over(-(noisy * log_softmax(outputs, 1)).sum(1), counts)

    def get_extra_state(self) -> dict[str, int]:
        """The number of draws so far, which is all that a checkpoint needs."""
        return {"draws": self.draws}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Continues after the number of draws in the state."""
        self.draws = state["draws"]


def _clamped(outputs: Tensor) -> Tensor:
    """Predictions clamped away from 0 and 1, as in the authors' code, so that the logarithm stays finite."""
    return softmax(outputs, 1).clamp(1e-4, 1 - 1e-4)


def _check_table(samples: int, classes: int) -> None:
    """Checks the size of a table with a row for each sample."""
    check_at_least("samples", samples, 1)
    check_at_least("classes", classes, 1)


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "cross-entropy": cross_entropy_loss,
    "gce": GeneralizedCrossEntropy,
    "sce": SymmetricCrossEntropy,
    "confidence-penalty": ConfidencePenalty,
    "elr": EarlyLearningRegularization,
    "forward": ForwardCorrection,
    "sln": StochasticLabelNoise,
}


LOG_LIKELIHOODS = (nn.CrossEntropyLoss, nn.NLLLoss, ForwardCorrection, StochasticLabelNoise)


def unit_of(loss_fn: object) -> str:
    """ "nat" for a negative log-likelihood; empty for any other loss, whose unit is not known.

    Args:
        loss_fn: a loss, or an entry of `LOSSES`, which makes one.
    """
    kind = loss_fn if isinstance(loss_fn, type) else type(loss_fn)
    is_likelihood = issubclass(kind, LOG_LIKELIHOODS) or loss_fn in (cross_entropy, cross_entropy_loss)
    return "nat" if is_likelihood else ""


TOLD = ("samples", "classes", "transition", "seed")
"""What a loss can be told of the training."""
LOSS_REGISTRY = Registry("loss", LOSSES)
"""The losses with their options."""


def loss_options(name: str) -> dict[str, Any]:
    """The options of a loss, each with its default value.

    Raises:
        ValueError: the loss is unknown.
    """
    return {key: option.default for key, option in LOSS_REGISTRY.options(name).items()}


def told_to_loss(name: str) -> tuple[str, ...]:
    """What a loss is told of the training: those of its arguments that are not keyword-only, and so no options.

    Returns:
        Some of `samples`, `classes`, `transition`, `seed`, in the order of the loss's arguments.

    Raises:
        ValueError: the loss is unknown, or needs something else.
    """
    arguments = inspect.signature(LOSS_REGISTRY.entry(name)).parameters.values()
    told = [each for each in arguments if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    for each in told:
        if each.name not in TOLD and each.default is inspect.Parameter.empty:
            raise ValueError(
                f"loss: {name!r} takes {each.name!r}, and can be told {', '.join(TOLD)}; make it a keyword-only "
                "argument, which is an option"
            )
    return tuple(each.name for each in told if each.name in TOLD)


@with_plain_numbers
def build_loss(
    name: str, *, samples: int, classes: int, transition: Tensor | None = None, seed: int = 0, **options: Any
) -> nn.Module:
    """Builds a loss by name.

    Args:
        name: one of `LOSSES`.
        samples: size of the training set, for losses that remember samples.
        classes: number of classes.
        transition: transition matrix, for forward correction.
        seed: for losses that draw. A loss gets those of these four that it takes (`told_to_loss`).
        options: see `loss_options(name)`.

    Raises:
        ValueError: the loss or an option is unknown, an option is out of range, or the transition matrix is missing.
    """
    LOSS_REGISTRY.check(name, options)
    told = told_to_loss(name)
    if "transition" in told and transition is None:
        raise ValueError(f"transition: loss {name!r} needs the transition matrix")
    known = {"samples": samples, "classes": classes, "transition": transition, "seed": seed}
    return LOSSES[name](**{key: known[key] for key in told}, **options)
