"""Ready-made pairs of `forward` and `count` for batches of common forms.

::

    Objective(model, token_loss, loader, **tasks.causal_language_model())
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

IGNORED = -100
"""The label of positions that do not count, by the convention of torch and transformers."""


class Task(TypedDict):
    """How `Objective` and the training methods run a model on a batch, and how much the batch counts for.

    Attributes:
        forward: (model, batch) -> outputs.
        count: batch -> weight of its mean loss.
    """

    forward: Callable[[nn.Module, Any], Any]
    count: Callable[[Any], Any]


def supervised() -> Task:
    """Batches (inputs, targets): the model gets the inputs, and each sample counts for one.

    The loss is called with (outputs, (inputs, targets)).
    """
    return Task(forward=lambda model, batch: model(batch[0]), count=lambda batch: len(batch[1]))


def tokens(labels: str = "labels", ignored: int = IGNORED) -> Task:
    """Batches that are dicts of a model's arguments and labels of positions, such as tokens or pixels.

    The model gets all arguments without the labels. Each position whose label is not ignored counts for one.

    Args:
        labels: the key of the labels.
        ignored: the label of positions that do not count.
    """

    def forward(model: nn.Module, batch: Mapping[str, Any]) -> Any:
        return model(**{name: value for name, value in batch.items() if name != labels})

    return Task(forward=forward, count=lambda batch: (batch[labels] != ignored).sum())


def causal_language_model(ignored: int = IGNORED) -> Task:
    """Batches of transformers' causal language models, with `input_ids`, `labels` and perhaps an `attention_mask`.

    The outputs are the logits (samples, positions, words); `next_token_loss` is the loss. As in transformers, each
    label is that of its own position; the first label of each row has no prediction and does not count.

    Args:
        ignored: the label of positions that do not count. For another than torch's -100 give the loss the same one:
            `functools.partial(next_token_loss, ignored=0)`.
    """
    return Task(
        forward=lambda model, batch: _logits(_called(model, batch, use_cache=False)),
        count=lambda batch: (batch["labels"][:, 1:] != ignored).sum(),
    )


def next_token_loss(logits: Tensor, batch: Mapping[str, Any], *, ignored: int = IGNORED) -> Tensor:
    """The mean cross-entropy of the next tokens that are not ignored, as transformers' causal models compute it.

    Positions before the first label, such as the virtual tokens of prompt tuning, have no label.

    Args:
        logits: (samples, positions, words).
        batch: holds the `labels` (samples, positions).
        ignored: the label of positions that do not count.
    """
    labels = batch["labels"][:, 1:]
    scores = logits[:, -batch["labels"].shape[1] :][:, :-1]
    return nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=ignored)


def hugging_face(*, sequence_to_sequence: bool = False) -> Task:
    """Batches of transformers' models, with `labels`: the outputs are the logits.

    `label_loss` is the loss, for one label a sample or one label a position. Ignored labels do not count.

    Args:
        sequence_to_sequence: whether the model gets the labels, from which it makes the inputs of the decoder.
    """
    return Task(
        forward=lambda model, batch: _logits(_called(model, batch, labels=sequence_to_sequence)),
        count=lambda batch: (batch["labels"] != IGNORED).sum(),
    )


def label_loss(logits: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """The mean cross-entropy of the labels that are not ignored; classes lie along the logits' last axis."""
    labels = batch["labels"]
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED)


def _called(model: nn.Module, batch: Mapping[str, Any], *, labels: bool = False, **options: Any) -> Any:
    arguments = {name: value for name, value in batch.items() if labels or name != "labels"}
    known = inspect.signature(model.forward).parameters
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values())
    return model(
        **arguments, **{name: value for name, value in options.items() if takes_any or name in known}
    )


def _logits(outputs: Any) -> Tensor:
    logits: Tensor = outputs if isinstance(outputs, torch.Tensor) else outputs["logits"]
    return logits
