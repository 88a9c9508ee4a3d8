"""A loss that is evaluated: it learns nothing of the labels it is shown, and measures in evaluation mode."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout, one_hot

from ncsam import SAM, Plain, Split, corrupt_labels, cross_validated_probabilities, fit, predict
from ncsam.detection import cross_validation

TARGETS = torch.arange(36) % 3
INPUTS = torch.randn(36, 4, generator=torch.Generator().manual_seed(0))
LABELS = corrupt_labels(TARGETS, rate=0.3, seed=0)


def shifted(prior, outputs, targets):
    """Cross-entropy with the logarithm of a running share of the classes, which moves."""
    prior.mul_(0.9).add_(0.1 * one_hot(targets, 3).float().mean(0))
    return cross_entropy(outputs + prior.log(), targets)


class Prior(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("prior", torch.full((3,), 1 / 3))

    def forward(self, outputs, targets):
        return shifted(self.prior, outputs, targets)


class PlainPrior:
    def __init__(self):
        self.prior = torch.full((3,), 1 / 3)

    def __call__(self, outputs, targets):
        self.prior = self.prior.clone()
        return shifted(self.prior, outputs, targets)

    def loss(self, outputs, targets):
        return self(outputs, targets)


class Within:
    """A loss that holds its state in an object of its own, and that cannot be copied."""

    def __init__(self):
        self.inner = PlainPrior()

    def __call__(self, outputs, targets):
        return self.inner(outputs, targets)

    def __deepcopy__(self, memo):
        raise TypeError("a file is open")


class OfItsOwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, outputs, targets):
        return cross_entropy(outputs + torch.randn(outputs.shape, generator=self.generator), targets)


def in_a_closure():
    prior = torch.full((3,), 1 / 3)
    return lambda outputs, targets: shifted(prior, outputs, targets)


LOSSES = {
    "module": Prior,
    "object": PlainPrior,
    "method of an object": lambda: PlainPrior().loss,
    "object within an object that cannot be copied": Within,
    "closure": in_a_closure,
    "lambda around a module": lambda: (lambda module: lambda o, t: module(o, t))(Prior()),
    "partial": lambda: partial(shifted, torch.full((3,), 1 / 3)),
    "generator": OfItsOwnGenerator,
}


def trained(loss_fn, held_out=TARGETS, method=Plain, model=None, **options):
    torch.manual_seed(0)
    model = nn.Linear(4, 3) if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    data = Split(INPUTS, TARGETS), LABELS, Split(INPUTS[: len(held_out)], held_out)
    history = fit(method(model, loss_fn, **options), optimizer, *data, epochs=2, batch_size=9, seed=0)
    return history, model


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("method", "options"), [(Plain, {}), (SAM, {"rho": 0.1})])
def test_held_out_samples_leave_the_trained_weights_alone(loss, method, options):
    weights = [
        trained(loss(), held_out, method, **options)[1].weight
        for held_out in (TARGETS, torch.zeros(20, dtype=torch.int64))
    ]
    assert torch.equal(*weights)


def test_the_labels_of_a_fold_leave_its_probabilities_alone(monkeypatch):
    fold = torch.arange(36) // 12
    monkeypatch.setattr(cross_validation, "folds_of", lambda *_: fold)

    def build(_):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        return Plain(model, Prior()), torch.optim.SGD(model.parameters(), lr=0.5)

    found = []
    for observed in (LABELS.observed, torch.where(fold == 0, 0, LABELS.observed)):
        labels = type(LABELS)(TARGETS, observed, LABELS.transition, "human", 0.3, 0, "empirical")
        chances = cross_validated_probabilities(
            Split(INPUTS, TARGETS), labels, build, epochs=2, batch_size=6, seed=0, folds=3
        )
        found.append(chances[fold == 0])
    assert torch.equal(*found)


class NoisyInTraining(nn.Module):
    def forward(self, outputs, targets):
        noise = torch.randn_like(outputs) if self.training else 0.0
        return cross_entropy(outputs + noise, targets)


@pytest.mark.parametrize("within", [lambda loss: loss, lambda loss: lambda o, t: loss(o, t)])
def test_the_stored_losses_are_those_in_evaluation_mode(within):
    loss = NoisyInTraining()
    history, model = trained(within(loss))
    outputs = predict(model, INPUTS)
    assert history.metrics["train_loss"][-1] == pytest.approx(cross_entropy(outputs, LABELS.observed).item())
    assert history.metrics["test_loss"][-1] == pytest.approx(cross_entropy(outputs, TARGETS).item())
    assert loss.training


class DrawsInEvaluation(nn.Linear):
    def forward(self, inputs):
        return super().forward(dropout(inputs, 0.5))


class DrawingLoss(nn.Module):
    def forward(self, outputs, targets):
        return cross_entropy(outputs + torch.randn_like(outputs), targets)


def test_a_loss_that_takes_gradients_by_itself_is_evaluated():
    def sharpened(outputs, targets):
        scores = outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(scores, targets), scores)
        return cross_entropy(outputs + slope, targets)

    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = Split(INPUTS, TARGETS)
    history = fit(Plain(model, sharpened), optimizer, data, LABELS, data, epochs=1, batch_size=12, seed=0)
    expected = sharpened(model(INPUTS), LABELS.observed).item()
    assert history.metrics["train_loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "loss_fn"),
    [(lambda: DrawsInEvaluation(4, 3), nn.CrossEntropyLoss()), (lambda: nn.Linear(4, 3), DrawingLoss())],
)
def test_draws_of_an_evaluation_follow_from_the_seed_and_not_from_the_caller(make, loss_fn):
    stored = []
    for seed in (1, 2):
        torch.manual_seed(0)
        model = make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        data = Split(INPUTS, TARGETS)
        history = fit(Plain(model, loss_fn), optimizer, data, LABELS, data, epochs=1, batch_size=9, seed=0)
        assert torch.equal(torch.get_rng_state(), before)
        stored.append(history.metrics["train_loss"].tolist())
    assert stored[0] == stored[1]
