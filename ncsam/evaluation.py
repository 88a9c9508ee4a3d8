"""Loss, accuracy and memorization of a model on the training set and on held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as MapDataset

from ncsam.datasets import Samples, Split, as_samples
from ncsam.dynamics import Recorder
from ncsam.evaluated_loss import loss_at_rest, measure_of
from ncsam.label_noise import NoisyLabels
from ncsam.losses import LOSSES, unit_of
from ncsam.memorization import memorized_share, recovered_share, share
from ncsam.methods.as_given import as_given
from ncsam.methods.batches import Batch, moved
from ncsam.methods.known_losses import ignored_label
from ncsam.methods.loss_checks import check_that_inputs_fit
from ncsam.methods.method import Method
from ncsam.methods.training_loss import remembers_samples
from ncsam.plain_numbers import with_plain_numbers
from ncsam.random_state import borrowed_generators
from ncsam.ranks import Share
from ncsam.training_modes import in_evaluation_mode

LOSS_METRICS = {
    "train_loss": "training loss with observed labels, in evaluation mode at the epoch's end (cross-entropy for ELR)",
    "test_loss": "loss on held-out samples",
}
"""Name of a loss that `evaluate` measures -> what its mean, or its sum, is of."""
EVALUATION_METRICS = {
    "train_loss": ("nat", f"mean {LOSS_METRICS['train_loss']}"),
    "train_accuracy": ("", "accuracy on the training set against observed labels"),
    "train_clean_accuracy": ("", "accuracy on the training set against true labels"),
    "memorized": ("", "share of wrongly labeled training samples predicted as their wrong label"),
    "recovered": ("", "share of wrongly labeled training samples predicted as their true label"),
    "test_loss": ("nat", f"mean {LOSS_METRICS['test_loss']}"),
    "test_accuracy": ("", "accuracy on held-out samples"),
}
"""Name -> (unit, description) of what `evaluate` measures; losses are in nat where the training loss is."""


@torch.no_grad()
@with_plain_numbers
def predict(
    model: nn.Module,
    inputs: Tensor | np.ndarray | Samples | MapDataset[Any] | DataLoader[Any],
    *,
    batch_size: int | None = None,
    autocast_dtype: torch.dtype | None = None,
) -> Tensor:
    """Outputs (n, classes) in evaluation mode. The model is in its former mode afterward.

    Args:
        model: any.
        inputs: as the model sees them, or samples, which are read piece by piece: all that `fit` trains on. Best on
            the model's device.
        batch_size: bounds the memory; 2000, or what the samples say, if not given.
        autocast_dtype: forward passes run under `torch.autocast` with this dtype.

    Raises:
        TypeError: inputs of another type.
        ValueError: inputs of another floating-point dtype than the weights, items that are neither inputs nor pairs
            (input, target), or a model whose outputs are no tensor.
    """
    if isinstance(inputs, np.ndarray):
        inputs = torch.as_tensor(inputs, device="cpu")
    if isinstance(inputs, Tensor):
        return _outputs_of(model, inputs.split(batch_size or Split.evaluation_batch), autocast_dtype)
    samples = as_samples("inputs", inputs, batch_size or Split.evaluation_batch)
    pieces = torch.arange(len(samples), device="cpu").split(batch_size or samples.evaluation_batch)
    return _outputs_of(model, samples.batches(pieces, seed=None), autocast_dtype)


def predicted_by(method: Method, samples: Samples) -> Tensor:
    """Outputs (n, classes) in evaluation mode: the mean over the networks by which a method predicts."""
    return _mean_over_predictors(
        method, lambda network, dtype: predict(network, samples, autocast_dtype=dtype)
    )


def _mean_over_predictors(
    method: Method, outputs_of: Callable[[nn.Module, torch.dtype | None], Tensor]
) -> Tensor:
    first, *others = [outputs_of(network, method.passes.autocast_dtype) for network in method.predictors()]
    return torch.stack([first, *others]).mean(0) if others else first


def _outputs_of(model: nn.Module, batches: Iterable[Batch], autocast_dtype: torch.dtype | None) -> Tensor:
    parameter = next(model.parameters(), None)
    device = None if parameter is None else parameter.device
    with in_evaluation_mode(model):
        outputs = []
        for batch in batches:
            inputs = batch if device is None else moved(batch, device)
            with torch.autocast(device.type, autocast_dtype) if device and autocast_dtype else nullcontext():
                outputs.append(_scores_of(model, inputs))
    return torch.cat(outputs).float() if autocast_dtype else torch.cat(outputs)


def _scores_of(model: nn.Module, inputs: Batch) -> Tensor:
    """The outputs for a batch; raises ValueError with the cause where the model does not take or give tensors."""
    try:
        outputs = model(as_given(inputs))
    except (RuntimeError, TypeError, AttributeError) as error:
        check_that_inputs_fit(model, inputs, error)
        if isinstance(inputs, dict | list | tuple):
            form = (
                f"dicts ({', '.join(map(repr, inputs))})"
                if isinstance(inputs, dict)
                else f"of {len(inputs)} parts"
            )
            raise ValueError(
                f"data: its items are {form}, on which the model fails: {error}; let items be pairs (input, target), "
                "without an index, or give a DataLoader whose collate_fn makes pairs of them"
            ) from error
        raise
    if isinstance(outputs, Tensor):
        return outputs
    key = next(iter(outputs), 0) if isinstance(outputs, Mapping) else 0
    raise ValueError(
        f"model: returns a {type(outputs).__name__}, and its accuracy and loss are measured on one tensor of scores "
        f"(batch, classes); give a module whose forward returns the scores alone, such as model(inputs)[{key!r}]"
    )


@torch.no_grad()
def outputs_of_first(method: Method, samples: Samples, count: int = 1) -> Tensor:
    """The outputs (count, classes, ...) of a method's model for the first samples, as they are evaluated.

    torch's generators are left where they stand.

    Raises:
        ValueError: the samples have another floating-point dtype than the weights, or are dicts or lists, which the
            model does not take, or the outputs are no scores (batch, classes, ...).
    """
    model = method.passes.module
    with borrowed_generators(next(model.parameters()).device):
        outputs = _outputs_of(model, [samples.some(count)], method.passes.autocast_dtype)
    if outputs.ndim < 2:
        raise ValueError(
            f"model: its outputs for {count} samples have the shape {tuple(outputs.shape)}; let it return scores of "
            "classes (batch, classes), two of them for two classes"
        )
    return outputs


def classes_in(samples: Samples) -> Tensor:
    """The targets (n, ...) of samples; whole numbers of any type as int64, as training labels are."""
    targets = samples.targets
    return targets if targets.is_floating_point() or targets.is_complex() else targets.long()


@dataclass(frozen=True)
class Evaluated:
    """Samples to evaluate on.

    Attributes:
        samples: which, this rank's own where each has some.
        share: how the ranks share them.
    """

    samples: Samples
    share: Share

    @torch.no_grad()
    def outputs(self, method: Method) -> Tensor:
        """The outputs (n, classes) for the samples of all ranks, the mean over the method's predictors."""
        return _mean_over_predictors(method, self.outputs_of)

    @torch.no_grad()
    def outputs_of(self, network: nn.Module, autocast_dtype: torch.dtype | None) -> Tensor:
        """The outputs (n, classes) of a network for the samples of all ranks.

        Args:
            network: not in DistributedDataParallel, which would share buffers in each pass.
            autocast_dtype: as for `predict`.
        """
        own = self.share.own(torch.arange(len(self.samples), device="cpu"))
        batches = self.samples.batches(own.split(self.samples.evaluation_batch), seed=None)
        with self.share.ranks.together():
            outputs = _outputs_of(network, batches, autocast_dtype)
        return self.share.whole(outputs, len(self.samples))

    def of_all(self, labels: Tensor) -> Tensor:
        """The labels of all ranks' samples, made from those of this rank."""
        if self.share.is_dealt:
            return labels
        return self.share.whole(labels, len(labels))


def evaluate(
    method: Method,
    train: Evaluated,
    labels: NoisyLabels,
    held_out: Evaluated,
    recorder: Recorder | None = None,
) -> dict[str, float]:
    """The `EVALUATION_METRICS` of a method's model; all NaN where outputs are not finite.

    A recorder takes note of what the model says of each training sample.
    """
    train_outputs = train.outputs(method)
    if recorder is not None:
        recorder.record(train_outputs)
    test_outputs = held_out.outputs(method)
    test_targets = held_out.of_all(classes_in(held_out.samples).to(test_outputs.device))
    labels = replace(labels, observed=train.of_all(labels.observed), clean=train.of_all(labels.clean))
    # argmax takes NaN for the largest score, and would give a diverged model an accuracy; it has none
    # (a score of minus infinity is allowed: with it a model rules a class out)
    if any((outputs.isnan() | outputs.isposinf()).any() for outputs in (train_outputs, test_outputs)):
        return dict.fromkeys(EVALUATION_METRICS, float("nan"))
    predictions = train_outputs.argmax(1)
    ignored = ignored_label(method.loss_fn)
    judged = _with_both_labels(labels, ignored)
    with loss_at_rest(method, test_outputs.device) as loss_fn:
        train_loss = float(loss_fn(train_outputs, as_given(labels.observed)))
    with loss_at_rest(method, test_outputs.device) as loss_fn:
        test_loss = float(loss_fn(test_outputs, as_given(test_targets)))
    return {
        "train_loss": train_loss,
        "train_accuracy": _accuracy(predictions, labels.observed, ignored),
        "train_clean_accuracy": _accuracy(predictions, labels.clean, ignored),
        "memorized": memorized_share(predictions, judged),
        "recovered": recovered_share(predictions, judged),
        "test_loss": test_loss,
        "test_accuracy": _accuracy(test_outputs.argmax(1), test_targets, ignored),
    }


def unit_of_loss(method: Method) -> str:
    """The unit of the `LOSS_METRICS`."""
    return unit_of(measure_of(method))


def unit_of_stored_loss(name: str) -> str:
    """The unit of the `LOSS_METRICS` of a training with the loss of this name; empty for an unknown one."""
    made_by = LOSSES.get(name)
    return unit_of(nn.CrossEntropyLoss if remembers_samples(made_by) else made_by)


def _accuracy(predictions: Tensor, targets: Tensor, ignored: int | None) -> float:
    counted = torch.ones_like(targets, dtype=torch.bool) if ignored is None else targets != ignored
    return share(predictions == targets, counted)


def _with_both_labels(labels: NoisyLabels, ignored: int | None) -> NoisyLabels:
    """The labels, of which one that misses its observed or its true label counts as right."""
    if ignored is None:
        return labels
    misses = (labels.observed == ignored) | (labels.clean == ignored)
    return replace(labels, clean=torch.where(misses, labels.observed, labels.clean))
