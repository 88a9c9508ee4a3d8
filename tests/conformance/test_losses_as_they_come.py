"""Losses and regularizers in unusual states: each is measured right, or refused with cause and remedy."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from landscape import Objective, tasks
from tests.conformance.right import assert_right, network, samples

cross_entropy = nn.functional.cross_entropy
calls = itertools.count()


class Noisy(nn.Module):
    """A loss with Dropout, such as that of a teacher network within."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, outputs, targets):
        return cross_entropy(self.dropout(outputs), targets)


def test_a_loss_is_measured_in_evaluation_mode_as_the_model_is():
    model, loss_fn = network(), Noisy()
    assert_right(Objective(model, loss_fn, samples()), model, samples())
    assert loss_fn.training


def test_a_loss_in_float32_of_a_model_in_float64_is_a_mean():
    model = network()
    objective = Objective(model, lambda o, t: cross_entropy(o.float(), t), samples())
    assert objective.value() == pytest.approx(
        cross_entropy(model(samples()[0]), samples()[1]).item(), rel=1e-6
    )


LOSSES = {
    "float": (lambda o, t: cross_entropy(o, t).item(), "must return a scalar tensor, got float"),
    "dict": (
        lambda o, t: {"loss": cross_entropy(o, t)},
        "must return a scalar tensor, got dict; .* their sum",
    ),
    "row": (lambda o, t: cross_entropy(o, t)[None], r"must return a scalar, got shape \(1,\)"),
    "sample": (lambda o, t: cross_entropy(o, t, reduction="none"), r"got shape \(12,\); take the mean"),
    "classes": (lambda o, t: cross_entropy(o, t + 1), r"fails on 12 .* out of bounds. \(outputs \(12, 3\)"),
    "sizes": (
        lambda o, t: nn.functional.binary_cross_entropy_with_logits(o, t.double()),
        r"must be the same as input size .*targets \(12,\)",
    ),
    "schedule": (
        lambda o, t: cross_entropy(o, t) * (1 + next(calls)),
        "the loss of the same outputs is",
    ),
    "noise": (
        lambda o, t: cross_entropy(o + torch.randn_like(o), t),
        "the loss of the same outputs depends on random numbers",
    ),
}


@pytest.mark.parametrize(("loss_fn", "says"), LOSSES.values(), ids=LOSSES)
def test_losses_that_cannot_be_measured_are_refused_with_cause_and_remedy(loss_fn, says):
    with pytest.raises(ValueError, match=f"loss_fn: .*{says}"):
        Objective(network(), loss_fn, samples())


def squares(parameters):
    return sum(part.square().sum() for part in parameters.values())


REGULARIZERS = {
    "random": (lambda p: torch.rand(()) * squares(p), "in one call and .* in the next"),
    "hardly random": (lambda p: (1 + 5e-4 * torch.rand(())) * squares(p), "in one call and .* in the next"),
    "missing": (lambda p: p["none"].sum(), r"fails with KeyError: 'none'; .* such as '0\.weight'"),
    "detached": (
        lambda p: sum((part * part.detach()).sum() for part in p.values()),
        "its gradient is not that of its value",
    ),
    "constant": (lambda p: float(squares(p)), "must return a real scalar tensor"),
}


@pytest.mark.parametrize(("regularizer", "says"), REGULARIZERS.values(), ids=REGULARIZERS)
def test_regularizers_that_cannot_be_measured_are_refused_with_cause_and_remedy(regularizer, says):
    with pytest.raises(ValueError, match=f"regularizer: .*{says}"):
        Objective(network(), nn.CrossEntropyLoss(), samples(), regularizer=regularizer)


@pytest.mark.parametrize("norm", [torch.square, torch.abs])
def test_right_regularizers_raise_no_alarm(norm):
    model = network()

    def penalty(parameters):
        return 0.1 * sum(norm(part).sum() for part in parameters.values())

    objective = Objective(model, nn.CrossEntropyLoss(), samples(), regularizer=penalty)
    inputs, targets = samples()
    assert_right(
        objective,
        model,
        loss=lambda own: cross_entropy(own(inputs), targets) + penalty(dict(own.named_parameters())),
    )


def test_virtual_tokens_of_prompt_tuning_have_no_labels():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 9, 7, generator=generator), torch.arange(24).view(4, 6) % 7
    found = tasks.next_token_loss(logits, {"labels": labels})
    assert found == cross_entropy(logits[:, 3:-1].flatten(0, 1), labels[:, 1:].flatten())


@pytest.mark.parametrize("ignored", [-100, -1, 0])
def test_a_causal_language_model_may_ignore_any_label(ignored):
    words = torch.randint(1, 7, (6, 5), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.arange(5) > torch.arange(6)[:, None] % 3 + 1, ignored, words)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    task = tasks.causal_language_model(ignored)
    task["forward"] = lambda own, batch: own(batch["input_ids"])
    loss = partial(tasks.next_token_loss, ignored=ignored)
    found = Objective(model, loss, {"input_ids": words, "labels": labels}, **task).value()
    counted = labels[:, 1:] != ignored
    right = cross_entropy(model(words)[:, :-1][counted], labels[:, 1:][counted])
    assert found == pytest.approx(right.item(), rel=1e-6)
