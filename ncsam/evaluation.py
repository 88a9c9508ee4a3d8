"""Loss, accuracy and memorization of a model on the training set and on held-out samples."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ncsam.datasets import Split
from ncsam.dynamics import Recorder
from ncsam.label_noise import NoisyLabels
from ncsam.losses import unit_of
from ncsam.memorization import memorized_share, recovered_share
from ncsam.methods.method import Method
from ncsam.methods.passes import remembers_samples

EVALUATION_METRICS = {
    "train_loss": (
        "nat",
        "mean training loss with observed labels, in evaluation mode at the epoch's end (cross-entropy for ELR)",
    ),
    "train_accuracy": ("", "accuracy on the training set against observed labels"),
    "train_clean_accuracy": ("", "accuracy on the training set against true labels"),
    "memorized": ("", "share of wrongly labeled training samples predicted as their wrong label"),
    "recovered": ("", "share of wrongly labeled training samples predicted as their true label"),
    "test_loss": ("nat", "mean loss on held-out samples"),
    "test_accuracy": ("", "accuracy on held-out samples"),
}
"""Name -> (unit, description) of what `evaluate` measures; losses are in nat where the training loss is."""
LOSS_METRICS = ("train_loss", "test_loss")


@torch.no_grad()
def predict(
    model: nn.Module,
    inputs: Tensor | Split,
    *,
    batch_size: int = 2000,
    autocast_dtype: torch.dtype | None = None,
) -> Tensor:
    """Outputs (n, classes) in evaluation mode. The model is in its former mode afterward.

    Args:
        model: any model.
        inputs: a tensor of what the model takes, or a split, which is normalized piece by piece. Either is best on the
            model's device.
        batch_size: number of samples in a forward pass; it bounds the memory.
        autocast_dtype: forward passes run under `torch.autocast` with this dtype.
    """
    modes = [(module, module.training) for module in model.modules()]
    place = inputs.pixels.device if isinstance(inputs, Split) else inputs.device
    parameter = next(model.parameters(), None)
    device = place if parameter is None else parameter.device
    pieces = torch.arange(len(inputs), device=place).split(batch_size)
    model.eval()
    try:
        with torch.autocast(device.type, autocast_dtype) if autocast_dtype else nullcontext():
            outputs = [
                model((inputs.batch(piece) if isinstance(inputs, Split) else inputs[piece]).to(device))
                for piece in pieces
            ]
    finally:
        for module, mode in modes:
            module.training = mode
    return torch.cat(outputs).float() if autocast_dtype else torch.cat(outputs)


def evaluate(
    method: Method, train: Split, labels: NoisyLabels, held_out: Split, recorder: Recorder | None = None
) -> dict[str, float]:
    """The `EVALUATION_METRICS` of a method's model; all NaN where outputs are not finite.

    A recorder takes note of what the model says of each training sample.
    """
    autocast_dtype = method.passes.autocast_dtype
    train_outputs = predict(method.model, train, autocast_dtype=autocast_dtype)
    if recorder is not None:
        recorder.record(train_outputs)
    test_outputs = predict(method.model, held_out, autocast_dtype=autocast_dtype)
    test_targets = held_out.targets.to(test_outputs.device)
    loss_fn = _evaluated_loss(method)
    # argmax takes NaN for the largest score, and would give a diverged model an accuracy; it has none
    # (a score of minus infinity is allowed: with it a model rules a class out)
    if any((outputs.isnan() | outputs.isposinf()).any() for outputs in (train_outputs, test_outputs)):
        return dict.fromkeys(EVALUATION_METRICS, float("nan"))
    predictions = train_outputs.argmax(1)
    return {
        "train_loss": loss_fn(train_outputs, labels.observed).item(),
        "train_accuracy": _accuracy(predictions, labels.observed),
        "train_clean_accuracy": _accuracy(predictions, labels.clean),
        "memorized": memorized_share(predictions, labels),
        "recovered": recovered_share(predictions, labels),
        "test_loss": loss_fn(test_outputs, test_targets).item(),
        "test_accuracy": _accuracy(test_outputs.argmax(1), test_targets),
    }


def unit_of_loss(method: Method) -> str:
    """The unit of the `LOSS_METRICS`."""
    return unit_of(_evaluated_loss(method))


def _evaluated_loss(method: Method) -> Any:
    """The training loss; cross-entropy in place of a loss that remembers samples, because it knows no held-out ones."""
    return nn.CrossEntropyLoss() if remembers_samples(method.loss_fn) else method.loss_fn


def _accuracy(predictions: Tensor, targets: Tensor) -> float:
    return (predictions == targets).double().mean().item()
