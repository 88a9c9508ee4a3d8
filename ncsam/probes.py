"""Measurements at chosen epochs of a training, on one large batch whose true labels are known."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ncsam.alignment import ALIGNMENT_METRICS, perturbation_alignment
from ncsam.methods.called_objects import objects_called
from ncsam.methods.method import Method
from ncsam.methods.perturbation import perturbed
from ncsam.methods.simulated_noise import confidence_gaps
from ncsam.methods.step_state import StepState
from ncsam.methods.tensor_lists import norm
from ncsam.random_state import borrowed_generators
from ncsam.training_modes import left_in_evaluation_mode, set_modes

GROUPS = {
    "wrong": "wrongly labeled samples",
    "ambiguous": "rightly labeled samples with a margin below their median",
    "confident": "rightly labeled samples with a margin of at least their median",
}
GRADIENT_METRICS = {
    **{f"probe_{name}": description for name, description in ALIGNMENT_METRICS.items()},
    **{
        f"probe_gradient_{group}": ("", f"norm of the mean gradient at w of the {words}")
        for group, words in GROUPS.items()
    },
    **{
        f"probe_perturbed_gradient_{group}": (
            "",
            f"norm of the mean gradient at w + perturbation of the {words}",
        )
        for group, words in GROUPS.items()
    },
}
"""Name -> (unit, description) of what `gradient_probe` measures."""


@dataclass(frozen=True)
class Probe:
    """A measurement at the end of some epochs. `fit` records it in the history, with NaN in the other epochs.

    Attributes:
        epochs: the epochs that are measured, counted from 1.
        measure: () -> the metrics by name. It must leave the training as it was. Weights that the optimizer does not
            hold require no gradient while it runs, as in the steps.
        metrics: name -> (unit, description) of each metric that `measure` returns.
    """

    epochs: Collection[int]
    measure: Callable[[], dict[str, float]]
    metrics: dict[str, tuple[str, str]]


def gradient_probe(
    method: Method,
    inputs: Tensor,
    observed: Tensor,
    clean: Tensor,
    indices: Tensor,
    *,
    epochs: Collection[int],
) -> Probe:
    """A probe that compares the method's next perturbation on a fixed batch with that of the true labels.

    It measures the `ALIGNMENT_METRICS`, and the norm of the gradient on three groups of samples before and after the
    perturbation. These norms say whether NCSAM damps wrongly labeled samples, or ambiguous samples with right or wrong
    labels. It costs about 7 gradients of the batch for a method that perturbs, and 4 for another method.

    Args:
        method: the method of the training.
        inputs: (batch, ...), some hundred samples or more.
        observed: int64 (batch,), their labels.
        clean: int64 (batch,), their true labels.
        indices: int64 (batch,), their positions in the training set.
        epochs: the epochs at whose end the probe measures, counted from 1.
    """

    def measure() -> dict[str, float]:
        with _undone(method):
            return _gradient_metrics(method, inputs, observed, clean, indices)

    return Probe(epochs, measure, GRADIENT_METRICS)


def _gradient_metrics(
    method: Method, inputs: Tensor, observed: Tensor, clean: Tensor, indices: Tensor
) -> dict[str, float]:
    set_modes([method.model], left_in_evaluation_mode([method.model]))
    # the gradient of the batch, and the perturbation that the method makes from it
    method.fill_gradients(inputs, observed, indices)
    aligned = perturbation_alignment(method, inputs, observed, clean, indices)
    metrics = {f"probe_{name}": value for name, value in aligned.items()}
    with torch.no_grad(), method.passes.unmoved():
        logits = method.passes.outputs(method.passes.module, inputs, indices, first=False)
    for group, members in _groups(logits, observed, clean).items():
        found = _norms(method, inputs[members], observed[members], indices[members])
        metrics[f"probe_gradient_{group}"], metrics[f"probe_perturbed_gradient_{group}"] = found
    return metrics


def _groups(logits: Tensor, observed: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """The members of each of the `GROUPS`, bool (batch,)."""
    is_wrong = observed != clean
    if logits.ndim != 2 or logits.shape[1] < 2 or is_wrong.all():
        nobody = torch.zeros_like(is_wrong)
        return {"wrong": is_wrong, "ambiguous": nobody, "confident": nobody}
    gaps = confidence_gaps(logits)
    is_ambiguous = gaps < gaps[~is_wrong].median()
    return {"wrong": is_wrong, "ambiguous": ~is_wrong & is_ambiguous, "confident": ~is_wrong & ~is_ambiguous}


def _norms(method: Method, inputs: Tensor, observed: Tensor, indices: Tensor) -> tuple[float, float]:
    """Norms of the samples' mean gradient at w and at w + the method's perturbation; NaN where none exists."""
    if len(inputs) < 2:
        return float("nan"), float("nan")
    at_w = norm(method.passes.gradient(inputs, observed, indices)[2]).item()
    if method.ascent is None:
        return at_w, float("nan")
    with perturbed(method.passes.module, method.ascent.perturbation):
        return at_w, norm(method.passes.gradient(inputs, observed, indices)[2]).item()


@contextmanager
def _undone(method: Method) -> Iterator[None]:
    """Restores all that passes change: state of modules, memories of losses, random states, counts and `.grad`."""
    parameters = list(method.parameters())
    gradients = [parameter.grad for parameter in parameters]
    loss = method.loss_fn if isinstance(method.loss_fn, nn.Module) else None
    state = copy.deepcopy((method.state_dict(), loss.state_dict() if loss else {}))
    modes = [(module, module.training) for module in method.model.modules()]
    ascent, spent = method.ascent, method.passes.sample_gradients
    for parameter in parameters:
        parameter.grad = None
    called = objects_called([method.loss_fn], method.passes.run)
    try:
        with borrowed_generators(parameters[0].device), ExitStack() as unmoved:
            for network in method.networks():
                unmoved.enter_context(StepState().unmoved(network, called))
            yield
    finally:
        method.passes.forget_state()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode
        method.load_state_dict(state[0])
        if loss is not None:
            loss.load_state_dict(state[1])
        method.passes.sample_gradients = spent
        method.ascent = ascent
