"""Models and losses that change the batch they get: each pass sees the batch as the caller gave it."""

import pytest
import torch
from torch import nn

from landscape import Objective
from ncsam import NCSAM, SAM, CoTeaching, Plain, Split, fit, human_labels, predict
from tests.conformance.right import assert_right
from tests.ncsam.methods_like_sam import WITH_ONE_SAM

D = torch.float64
cross_entropy = nn.CrossEntropyLoss()


def batch():
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=D) + 1, torch.arange(12) % 3


class Shifting(nn.Module):
    """Shifts and scales its inputs, in place or not."""

    def __init__(self, writes, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(D)
        self.writes = writes

    def forward(self, x):
        return self.layers(x.sub_(0.5).mul_(2) if self.writes else (x - 0.5) * 2)


class Smoothing:
    """A cross-entropy that smooths the probabilities it gets as targets, in place or not."""

    def __init__(self, writes):
        self.writes = writes

    def __call__(self, scores, targets):
        smooth = targets.mul_(0.9).add_(0.1 / 3) if self.writes else targets * 0.9 + 0.1 / 3
        return nn.functional.cross_entropy(scores, smooth)


METHODS = {
    **{
        name: lambda model, method=method: method(model, cross_entropy, rho=0.5)
        for name, method in WITH_ONE_SAM.items()
    },
    "ncsam": lambda model: NCSAM(model, cross_entropy, rho=0.5, flip_ratio=0.4, strength=1.0),
    "plain": lambda model: Plain(model, cross_entropy),
    "co-teaching": lambda model: CoTeaching(
        model, cross_entropy, peer=Shifting(model.writes, seed=1), forget_rate=0.25
    ),
}


def gradient_of(method, *batch):
    method.progress = 0.5
    loss = method.backward(*batch)
    return loss, torch.cat([weight.grad.flatten() for weight in method.parameters()])


TAKE_BATCHES_WHOLE = ("1-sam", "co-teaching")
CASES = [
    *((name, None) for name in METHODS),
    *((name, 5) for name in METHODS if name not in TAKE_BATCHES_WHOLE),
]


@pytest.mark.parametrize(("name", "micro_batch_size"), CASES)
def test_a_model_that_writes_to_its_inputs_has_the_gradient_of_one_that_does_not(name, micro_batch_size):
    inputs, targets = batch()
    found = []
    for writes in (False, True):
        method = METHODS[name](Shifting(writes))
        method.passes.micro_batch_size = micro_batch_size
        found.append(gradient_of(method, inputs, targets))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)
    assert torch.equal(inputs, batch()[0])


NEED_OUTPUTS = ("j-sam", "l-sam", "1-sam")


@pytest.mark.parametrize("name", [name for name in WITH_ONE_SAM if name not in NEED_OUTPUTS])
def test_a_closure_whose_model_writes_to_its_inputs_is_refused_and_right_with_the_remedy(name):
    inputs, targets = batch()
    with pytest.raises(ValueError, match=r"^closure: the model writes to its inputs.*inputs\.clone\(\)"):
        gradient_by_closure(name, lambda: inputs, targets)
    inputs = batch()[0]
    torch.testing.assert_close(
        gradient_by_closure(name, inputs.clone, targets),
        gradient_of(METHODS[name](Shifting(writes=False)), inputs, targets)[1],
    )


def test_a_closure_that_is_called_once_may_have_a_model_that_writes_to_its_inputs():
    inputs, targets = batch()
    expected = gradient_of(METHODS["plain"](Shifting(writes=False)), inputs.clone(), targets)[1]
    torch.testing.assert_close(gradient_by_closure("plain", lambda: inputs, targets), expected)


def gradient_by_closure(name, give_inputs, targets):
    model = Shifting(writes=True)
    method = METHODS[name](model)
    method.progress = 0.5
    method.backward(closure=lambda: cross_entropy(model(give_inputs()), targets))
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


def test_a_loss_that_writes_to_its_targets_has_the_gradient_of_one_that_does_not():
    inputs, targets = batch()
    probabilities = nn.functional.one_hot(targets, 3).to(D)
    found = [
        gradient_of(SAM(Shifting(False), Smoothing(writes), rho=0.5), inputs, probabilities)
        for writes in (False, True)
    ]
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)
    assert torch.equal(probabilities, nn.functional.one_hot(targets, 3).to(D))
    assert_right(
        Objective(Shifting(True), Smoothing(True), (inputs, probabilities)),
        Shifting(False),
        loss=lambda model: Smoothing(False)(model(inputs), probabilities),
    )


class Graph:
    """A batch of a class of its own, which landscape and ncsam know nothing of."""

    def __init__(self, x, y):
        self.x, self.y = x, y


FORMS = {
    "dict whose entries are taken out": (
        lambda x, y: {"x": x, "y": y},
        lambda model, batch: model(batch.pop("x")),
        lambda scores, batch: cross_entropy(scores, batch.pop("y")),
    ),
    "object whose tensors are written": (
        Graph,
        lambda model, batch: model(batch.x),
        lambda scores, batch: cross_entropy(scores, batch.y),
    ),
    "list that is emptied": (
        lambda x, y: [x, y, "name"],
        lambda model, batch: model(batch.pop(0)),
        lambda scores, batch: cross_entropy(scores, batch[1]),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_pass_over_a_batch_of_any_form_sees_all_of_it(form):
    make, forward, loss = FORMS[form]
    inputs, targets = batch()
    _, expected = gradient_of(SAM(Shifting(False), cross_entropy, rho=0.5), inputs, targets)
    _, found = gradient_of(SAM(Shifting(True), loss, rho=0.5, forward=forward), make(inputs, targets))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_training_and_predictions_leave_the_data_as_they_were():
    inputs, targets = batch()
    labels = human_labels(targets, targets)
    for model in (Shifting(True), Shifting(False)):
        outputs = predict(model, inputs)
        torch.testing.assert_close(predict(model, Split(inputs, targets)), outputs)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = Split(inputs, targets)
        history = fit(
            Plain(model, cross_entropy), optimizer, data, labels, data, epochs=2, batch_size=6, seed=0
        )
        assert torch.equal(inputs, batch()[0])
        if model.writes:
            found = history.metrics["test_loss"]
    assert list(found) == list(history.metrics["test_loss"])
