"""Warns of inputs that are measured as they are, and are likely a mistake."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landscape.data.batches import Batch
from landscape.data.class_scores import are_class_scores
from landscape.data.complex_numbers import is_whole
from landscape.data.counts import FUNCTIONS
from landscape.data.places import LossOfPlaces
from landscape.data.task import LossFunction
from landscape.guards.agreement import agree_but_for_rounding

cross_entropy, nll_loss = nn.functional.cross_entropy, nn.functional.nll_loss

SUM_TOLERANCE = 1e-2
"""Difference from 1 up to which the sum of a sample's outputs is one of probabilities, in half precision too."""

LOG_TOLERANCE = 0.1
"""Logarithm of the sum of a sample's exponentiated outputs up to which they are logarithms of probabilities."""

SAME = 1e-3
"""Relative difference of two losses that are the same function; two different ones of one model differ by more."""


def warn_of_outputs(
    loss_fn: LossFunction,
    outputs: Any,
    targets: Batch,
    outputs_of: Callable[[Batch], Any] | None = None,
) -> None:
    """Warns if outputs are of another kind than the loss takes. A function is known by its value.

    Args:
        loss_fn: (outputs, targets) -> mean loss.
        outputs: of some samples.
        targets: of the same samples.
        outputs_of: whole batch -> outputs, where the loss gets whole batches.

    Warns:
        UserWarning: cross-entropy gets probabilities, the log-likelihood gets no logarithms of probabilities, or a
            causal language model is asked for the words that it is given.
    """
    if isinstance(loss_fn, LossOfPlaces):
        loss_fn, targets = loss_fn.loss, targets.flatten(0, 1)
    if are_class_scores(outputs, targets) and len(outputs):
        _warn_of_scores(loss_fn, outputs, targets)
    if isinstance(targets, Mapping) and isinstance(outputs, Tensor):
        _warn_of_unshifted_words(loss_fn, outputs, targets, outputs_of)


def _warn_of_scores(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> None:
    scores = outputs.double()
    sums = (scores.sum(1) - 1).abs().amax()
    are_probabilities = bool(scores.amin() >= 0) and bool(sums <= SUM_TOLERANCE)
    are_logarithms = bool(scores.logsumexp(1).abs().amax() <= LOG_TOLERANCE)
    if are_probabilities and _is(loss_fn, cross_entropy, nn.CrossEntropyLoss, outputs, targets):
        warnings.warn(
            "model: its outputs are probabilities (none is negative, and those of a sample sum to 1), and "
            "cross-entropy takes the softmax itself, so that the measured loss is not that of these probabilities; "
            "leave the softmax out of the model",
            stacklevel=4,
        )
    elif not are_logarithms and _is(loss_fn, nll_loss, nn.NLLLoss, outputs, targets):
        warnings.warn(
            "model: its outputs are no logarithms of probabilities, which the negative log-likelihood takes, so that "
            "the measured loss is no likelihood; end the model with LogSoftmax(1), or take CrossEntropyLoss",
            stacklevel=4,
        )


def _is(
    loss_fn: LossFunction, function: Any, module: type[nn.Module], outputs: Tensor, targets: Tensor
) -> bool:
    """Whether a loss is one of torch's: by its class, or by its value for these outputs."""
    function_of = getattr(loss_fn, "func", loss_fn)
    if isinstance(loss_fn, module) or FUNCTIONS.get(function_of) is module:
        return True
    if isinstance(loss_fn, nn.Module) and type(loss_fn).__module__ == nn.modules.loss.__name__:
        return False
    targets = targets.long()
    if not 0 <= int(targets.amin()) <= int(targets.amax()) < outputs.shape[1]:
        return False
    return _is_near(loss_fn(outputs, targets), function(outputs, targets))


def _warn_of_unshifted_words(
    loss_fn: LossFunction,
    logits: Tensor,
    batch: Mapping[str, Any],
    outputs_of: Callable[[Batch], Any] | None,
) -> None:
    # a decoder with words of its own names these
    words, labels = batch.get("decoder_input_ids", batch.get("input_ids")), batch.get("labels")
    if not isinstance(words, Tensor) or not isinstance(labels, Tensor) or words.shape != labels.shape:
        return
    if labels.ndim != 2 or logits.ndim != 3 or logits.shape[:2] != labels.shape or not is_whole(labels):
        return
    kept = labels >= 0
    if not kept[:, 1:].any() or not torch.equal(words[kept], labels[kept]):
        return
    labels = torch.where(kept, labels, -100)
    own = cross_entropy(logits.flatten(0, 1), labels.flatten())
    following = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    found = loss_fn(logits, batch)
    if not _is_near(found, own) or _is_near(found, following):
        return
    if not (outputs_of and _depends_on_labels(outputs_of, logits, batch)):
        warnings.warn(
            "labels: are the input_ids, and the loss compares each word with the scores at its own place, so that the "
            f"model is measured at naming the word that it was given ({own:.4g}), not the next one ({following:.4g}); "
            "for a causal language model give next_token_loss and **tasks.causal_language_model()",
            stacklevel=4,
        )


def _depends_on_labels(outputs_of: Callable[[Batch], Any], logits: Tensor, batch: Mapping[str, Any]) -> bool:
    """Whether the model reads the labels, as an encoder-decoder does, which gets each one place later."""
    labels = batch["labels"]
    # other words, of those there are
    others = torch.where(labels >= 0, labels.amax() - labels, labels)
    try:
        found = outputs_of({**batch, "labels": others})
    except Exception:
        # a batch that takes no other labels
        return False
    return not (isinstance(found, Tensor) and agree_but_for_rounding(found, logits))


def _is_near(one: Tensor, other: Tensor) -> bool:
    # two losses of outputs that are all 0 may both be 0
    one, other = one.detach(), other.detach()
    return float(other) != 0 and abs(float(one) - float(other)) <= SAME * abs(float(other))
