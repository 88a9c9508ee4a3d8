"""Outputs of pairs (inputs, targets) that are no tensor with a row for each sample: measured as any batch is."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from landscape import Objective, filter_normalized_directions, line
from tests.conformance.right import D, assert_right, samples


@dataclasses.dataclass
class Scores:
    logits: Tensor
    hidden: Tensor


class Heads(nn.Module):
    """Five inputs, and outputs that a function makes of three scores and four hidden units."""

    def __init__(self, outputs_of):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head, self.outputs_of = nn.Linear(5, 4), nn.Linear(4, 3), outputs_of

    def forward(self, x):
        hidden = torch.tanh(self.inner(x))
        return self.outputs_of(self.head(hidden), hidden)


def of_both(logits, hidden, targets):
    return cross_entropy(logits, targets) + 0.1 * hidden.square().mean()


def members(scores, _):
    return torch.stack([scores, 2 * scores, 3 * scores, 4 * scores])


FORMS = {
    "tuple": (lambda scores, hidden: (scores, hidden), lambda o, t: of_both(*o, t)),
    "dict": (lambda s, h: {"s": s, "h": h}, lambda o, t: of_both(o["s"], o["h"], t)),
    "dataclass": (Scores, lambda o, t: of_both(o.logits, o.hidden, t)),
    "ensemble": (members, lambda o, t: cross_entropy(o.flatten(0, 1), t.repeat(4))),
    "samples along the second axis": (lambda scores, _: scores.T, lambda o, t: cross_entropy(o.T, t)),
}


@pytest.mark.parametrize("count", [3, 4, 12])
@pytest.mark.parametrize("chunk_size", [4, 512])
@pytest.mark.parametrize(("outputs_of", "loss_fn"), FORMS.values(), ids=FORMS)
def test_outputs_of_any_form_are_measured(outputs_of, loss_fn, count, chunk_size):
    model, (inputs, targets) = Heads(outputs_of).to(D), samples(count)
    objective = Objective(model, loss_fn, (inputs, targets), chunk_size=chunk_size)
    assert_right(objective, model, loss=lambda model: loss_fn(model(inputs), targets))
    value = loss_fn(model(inputs), targets).item()
    assert objective.value() == pytest.approx(value, rel=1e-12)
    # outputs that are no scores of classes have no accuracy, also where their sizes happen to fit
    assert objective.evaluate().accuracy != objective.evaluate().accuracy
    found = line(objective, filter_normalized_directions(objective, 1, seed=0), steps=3)
    assert found.loss[1] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("keep", ["all", "none"])
def test_a_stream_of_such_pairs_is_measured(keep):
    outputs_of, loss_fn = FORMS["tuple"]
    model, (inputs, targets) = Heads(outputs_of).to(D), samples(12)
    batches = [(inputs[:5], targets[:5]), (inputs[5:], targets[5:])]
    objective = Objective(model, loss_fn, batches, keep=keep)
    assert_right(objective, model, loss=lambda model: loss_fn(model(inputs), targets))


@pytest.mark.parametrize("name", ["tuple", "dict", "ensemble"])
def test_such_outputs_have_the_gauss_newton_matrix_that_forward_gives_them(name):
    outputs_of, loss_fn = FORMS[name]
    model, pair = Heads(outputs_of).to(D), samples(12)
    block = torch.randn(39, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    by_forward = Objective(model, lambda o, b: loss_fn(o, b[1]), pair, forward=lambda model, b: model(b[0]))
    torch.testing.assert_close(Objective(model, loss_fn, pair).ggnvp(block), by_forward.ggnvp(block))


def test_a_tensor_with_rows_keeps_its_accuracy():
    model, (inputs, targets) = Heads(lambda scores, _: scores).to(D), samples(12)
    hits = (model(inputs).argmax(1) == targets).double().mean().item()
    assert Objective(model, cross_entropy, (inputs, targets)).evaluate().accuracy == pytest.approx(hits)


WEIGHTS = torch.arange(1.0, 4, dtype=D)

REFUSED = {
    "a loss of one tensor": (
        FORMS["tuple"][0],
        nn.CrossEntropyLoss(),
        "the model returns a tuple: let the loss",
    ),
    "no mean": (
        FORMS["tuple"][0],
        lambda o, t: cross_entropy(o[0], t, weight=WEIGHTS),
        "is not the mean over the samples",
    ),
    "mixed samples": (
        lambda s, h: (s - s.mean(0), h),
        FORMS["tuple"][1],
        "is not the mean over the samples|depend on the other samples",
    ),
    "a mean as output": (
        lambda s, _: s.mean(),
        lambda o, t: mse_loss(o, t.to(D)),
        "is not the mean over the samples",
    ),
    "the wrong axis": (lambda s, _: s.T, nn.CrossEntropyLoss(), "returns no row of outputs for each sample"),
    "random": (lambda s, h: (s + torch.randn_like(s), h), FORMS["tuple"][1], "random numbers that it draws"),
}


@pytest.mark.parametrize(("outputs_of", "loss_fn", "says"), REFUSED.values(), ids=REFUSED)
def test_wrong_ones_are_refused(outputs_of, loss_fn, says):
    with pytest.raises(ValueError, match=says):
        Objective(Heads(outputs_of).to(D), loss_fn, samples(12)).value()
