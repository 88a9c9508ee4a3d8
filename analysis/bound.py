"""Theorem 1 of arXiv:2601.19947 and its assumption, term by term, for one trained model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import h5py
import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.objectives import objective_of
from landscape import Objective, Sharpness, sharpness
from landscape.results.fields import described
from landscape.results.registry import result
from landscape.results.shown import Result
from landscape.seeds import generator_for, normal_like

DELTA = 0.05


@result
class Bound(Result):
    """Eq. 6: `clean_loss` <= `empirical` + `sampling` + `complexity`, with probability 1 - `delta`.

    The maximum in the empirical term is the largest loss that was found, and so a lower bound of the maximum. So the
    right side is a lower bound too: if the inequality holds as computed here, it holds.
    """

    loss: str = described("loss in [0, 1]: zero-one, or cross-entropy clipped at 1 nat")
    clean_loss: float = described("left side: mean loss on clean test data")
    training_loss: float = described("mean loss on the training set with observed labels")
    worst_loss: float = described(
        "largest mean loss on the training set found within the radius: a lower bound"
    )
    empirical: float = described("worst_loss / (1 - noise_rate)")
    sampling: float = described("1 / ((1 - noise_rate) sqrt(right_labels))")
    complexity: float = described("sqrt(X / (right_labels - 1))")
    right: float = described("right side: the sum of the three terms")
    slack: float = described("right side less left side; negative where the bound does not hold")
    vacuous: bool = described("the right side is at least 1, which any loss in [0, 1] is below")
    dominant: str = described("the largest of the three terms")
    rho: float = described("radius in weight space, l2")
    delta: float = described("probability with which the bound may fail")
    noise_rate: float = described("alpha: share of wrong labels in the training set")
    right_labels: int = described("n_s: training samples whose label is right")
    weights: int = described("K: number of trainable weights")
    weight_norm: float = described("l2 norm of the weights")
    steps: int = described("most steps of ascent from each start")
    restarts: int = described("most random starts beside the gradient's")
    converged: bool = described("the ascent of the cross-entropy converged", default=False)


@result
class Assumption(Result):
    """Assumption 1: `clean_loss` <= `perturbed_loss`, the mean under Gaussian perturbation of the weights."""

    loss: str = described("loss in [0, 1]: zero-one, or cross-entropy clipped at 1 nat")
    clean_loss: float = described("left side: mean loss on clean test data")
    perturbed_loss: float = described("right side: the same, averaged over the draws")
    gap: float = described("right side less left side; negative where the assumption does not hold")
    standard_error: float = described("of the right side, over the draws")
    sigma: float = described("standard deviation of the perturbation of each weight, Eq. 5")
    rho: float = described("radius from which sigma follows, l2")
    draws: int = described("perturbations drawn")


def zero_one(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of wrong predictions; outputs with a NaN count as wrong."""
    wrong = (outputs.argmax(1) != targets) | outputs.isnan().any(1)
    return wrong.to(outputs.dtype).mean()


def clipped_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of min(cross-entropy, 1)."""
    return functional.cross_entropy(outputs, targets, reduction="none").clamp(max=1).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "zero_one": zero_one,
    "cross_entropy": clipped_cross_entropy,
}
"""Name -> (outputs, targets) -> mean of a loss in [0, 1]."""


def complexity(weights: int, weight_norm: float, right_labels: int, rho: float, delta: float) -> float:
    """The last term of Eq. 6, sqrt(X / (n_s - 1)).

    X = K/4 log(1 + ||w||^2 / rho^2 (1 + sqrt(log n_s / K))^2) + 1/4 + log(n_s / delta) + 2 log(6 n_s + 3 K).
    """
    inner = 1 + (weight_norm / rho * _widening(weights, right_labels)) ** 2
    of_weights = weights / 4 * math.log(inner)
    of_samples = math.log(right_labels / delta) + 2 * math.log(6 * right_labels + 3 * weights)
    return math.sqrt((of_weights + 0.25 + of_samples) / (right_labels - 1))


def perturbation_scale(weights: int, right_labels: int, rho: float) -> float:
    """Sigma of Eq. 5: rho / (sqrt(K) (1 + sqrt(log n_s / K)))."""
    return rho / (math.sqrt(weights) * _widening(weights, right_labels))


def _widening(weights: int, right_labels: int) -> float:
    return 1 + math.sqrt(math.log(right_labels) / weights)


def theorem_1(
    training: Objective,
    test: Objective,
    right_labels: int,
    *,
    loss: str,
    ascent: Sharpness,
    delta: float = DELTA,
) -> Bound:
    """Both sides of Eq. 6 for a trained model.

    The maximum of the loss near the weights is taken at the end of an ascent of the cross-entropy, because the losses
    in [0, 1] have no gradient on the samples that matter. It is a lower bound of the maximum in the theorem.

    Args:
        training: the loss over the whole training set with its observed labels.
        test: the same loss over clean test data.
        right_labels: n_s, the number of right training labels.
        loss: name of the loss.
        ascent: the ascent of the cross-entropy on the same training set, in a ball with the radius of the theorem.
        delta: probability with which the bound may fail.

    Raises:
        ValueError: there are fewer than two right labels, or more than samples; delta is out of range; the ascent is in
            another neighborhood or holds no offset.
    """
    if ascent.norm != "l2" or ascent.adaptive != "none" or ascent.offset is None:
        raise ValueError(
            "ascent: must be of the plain ball and hold its offset, as `landscape.sharpness` returns it"
        )
    _check(training, right_labels, ascent.rho)
    if not 0 < delta < 1:
        raise ValueError(f"delta: must be a probability above 0 and below 1, got {delta}")
    center, highest = training.value(), training.value(training.theta + ascent.offset)
    worst = highest if math.isnan(highest) else max(center, highest)
    alpha = 1 - right_labels / training.n_samples
    norm = float(torch.linalg.vector_norm(training.theta.double()))
    terms = {
        "empirical": worst / (1 - alpha),
        "sampling": 1 / ((1 - alpha) * math.sqrt(right_labels)),
        "complexity": complexity(training.n_parameters, norm, right_labels, ascent.rho, delta),
    }
    left, right = test.value(), sum(terms.values())
    return Bound(
        loss=loss,
        clean_loss=left,
        training_loss=center,
        worst_loss=worst,
        **terms,
        right=right,
        slack=right - left,
        vacuous=not right < 1,
        dominant=max(terms, key=lambda name: terms[name]),
        rho=ascent.rho,
        delta=delta,
        noise_rate=alpha,
        right_labels=right_labels,
        weights=training.n_parameters,
        weight_norm=norm,
        steps=ascent.steps,
        restarts=ascent.restarts,
        converged=ascent.converged,
    )


def assumption_1(
    test: Objective, right_labels: int, *, loss: str, rho: float = 0.05, draws: int = 30, seed: int = 0
) -> Assumption:
    """Both sides of Assumption 1 on clean test data, the right one by Monte Carlo.

    Args:
        test: the loss over clean test data.
        right_labels: n_s, the number of right training labels; sigma depends on it.
        loss: name of the loss.
        rho: radius from which sigma follows, l2.
        draws: number of draws of the perturbation.
        seed: seed of the draws.

    Raises:
        ValueError: there are fewer than two right labels or two draws, or rho is out of range.
    """
    _check(test, right_labels, rho, within=False)
    if draws < 2:
        raise ValueError(f"draws: must be at least 2 for a standard error, got {draws}")
    sigma = perturbation_scale(test.n_parameters, right_labels, rho)
    generator = generator_for("Assumption 1", seed)
    losses = torch.empty(draws, dtype=torch.float64, device="cpu")
    for draw in range(draws):
        noise = normal_like(test.theta.shape, test.theta, generator)
        losses[draw] = test.value(test.theta + sigma * noise)
    left, right = test.value(), float(losses.mean())
    return Assumption(
        loss=loss,
        clean_loss=left,
        perturbed_loss=right,
        gap=right - left,
        standard_error=float(losses.std()) / math.sqrt(draws),
        sigma=sigma,
        rho=rho,
        draws=draws,
    )


def _check(objective: Objective, right_labels: int, rho: float, *, within: bool = True) -> None:
    if right_labels < 2:
        raise ValueError(f"right_labels: the bound needs at least 2 right labels, got {right_labels}")
    if within and right_labels > objective.n_samples:
        raise ValueError(f"right_labels: {right_labels} of {objective.n_samples} training samples")
    if not 0 < rho < math.inf:
        raise ValueError(f"rho: must be positive and finite, got {rho}")


def measure_bounds(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    is_wrong: Tensor,
    test: tuple[Tensor, Tensor],
    *,
    rho: float = 0.05,
    draws: int = 30,
    seed: int = 0,
) -> dict[str, Any]:
    """Theorem 1 and Assumption 1 with both losses: group in the run file -> result.

    Args:
        model: a trained model.
        train: inputs and observed labels of the whole training set, because the bound is about all of it.
        is_wrong: which of these labels are wrong, bool (n,).
        test: inputs and true labels of the test set.
        rho: radius, l2.
        draws: number of draws of the Gaussian perturbation.
        seed: seed of all draws.
    """
    right_labels = int((~is_wrong).sum())
    ascent = sharpness(objective_of(model, train), rho=rho, seed=seed)
    results: dict[str, Any] = {}
    for name, loss_fn in LOSSES.items():
        training, clean = (objective_of(model, data, loss_fn) for data in (train, test))
        results[f"bound/{name}"] = theorem_1(training, clean, right_labels, loss=name, ascent=ascent)
        results[f"assumption/{name}"] = assumption_1(
            clean, right_labels, loss=name, rho=rho, draws=draws, seed=seed
        )
    return results


def bound_scalars(file: h5py.File) -> dict[str, float]:
    """A run file's numbers of Theorem 1 and Assumption 1 for the table of runs; NaN if they were not measured.

    `bound_LOSS_slack_converged` is 1 if the search of the maximum converged, else 0, and NaN if the file does not say.
    """
    of_bound = ("clean_loss", "empirical", "sampling", "complexity", "right", "slack", "rho")
    fields = {
        **{("bound", name): name for name in of_bound},
        ("bound", "converged"): "slack_converged",
        **{("assumption", name): name for name in ("gap", "standard_error")},
    }
    return {
        f"{group}_{loss}_{column}": float(file[f"{group}/{loss}/{name}"][()])
        if f"{group}/{loss}/{name}" in file
        else math.nan
        for (group, name), column in fields.items()
        for loss in LOSSES
    }
