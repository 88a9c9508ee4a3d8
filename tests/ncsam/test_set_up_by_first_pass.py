"""What a model sets up in its first pass: a step on a new model is that on one that was run once before."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from ncsam import NCSAM, SAM, NoisyLabels, Split, fit
from tests.ncsam.methods_like_sam import LIKE_SAM, WITH_ONE_SAM

INPUTS = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(12) % 3
LOSS = nn.CrossEntropyLoss()


class SetsUp(nn.Module):
    """A network that calls `set_up` in its first pass, and remembers in an attribute that it did."""

    def __init__(self, set_up):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(5, 6).double(), nn.Linear(6, 3).double()
        self.set_up, self.is_set_up, self.shift, self.mixing = set_up, False, None, None

    def forward(self, inputs):
        if not self.is_set_up:
            self.set_up(self, inputs)
            self.is_set_up = True
        hidden = torch.tanh(self.first(inputs))
        if self.mixing is not None:
            hidden = hidden @ self.mixing if torch.is_tensor(self.mixing) else self.mixing(hidden)
        return self.last(hidden if self.shift is None else hidden * self.shift)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def _frozen_part(model, _):
    model.mixing = nn.Linear(6, 6).double().requires_grad_(False)


def _first_batch(model, inputs):
    model.first.bias.data.copy_(-inputs.mean() * torch.ones(6, dtype=torch.float64))


SET_UPS = {
    "forward hook": lambda model, _: model.first.register_forward_hook(lambda *args: 2 * args[-1] + 1),
    "forward hook with keywords": lambda model, _: model.first.register_forward_hook(
        lambda *args: 2 * args[-1], with_kwargs=True
    ),
    "pre-forward hook": lambda model, _: model.last.register_forward_pre_hook(
        lambda _, inputs: (inputs[0] * 3,)
    ),
    "backward hook": lambda model, _: model.last.register_full_backward_hook(lambda *args: (3 * args[1][0],)),
    "pre-backward hook": lambda model, _: model.last.register_full_backward_pre_hook(
        lambda _, slopes: (3 * slopes[0],)
    ),
    "hook on a gradient": lambda model, _: model.first.weight.register_hook(lambda gradient: 3 * gradient),
    "state-dict hook": lambda model, _: model.register_state_dict_post_hook(lambda *_: None),
    "buffer": lambda model, inputs: model.register_buffer("scale", inputs.std()),
    "random numbers": lambda model, _: setattr(model, "mixing", torch.randn(6, 6, dtype=torch.float64)),
    "frozen part with random weights": _frozen_part,
    "parametrization": lambda model, _: parametrize.register_parametrization(
        model.first, "weight", Doubled()
    ),
    "weights by the first batch": _first_batch,
}


def _hooks(model):
    return [
        sum(map(len, (vars(module)[name] for name in vars(module) if name.endswith("_hooks"))))
        for module in model.modules()
    ]


def _step(method, model):
    torch.manual_seed(5)
    method.backward(INPUTS, TARGETS)
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def _ncsam(model, loss_fn, *, rho):
    method = NCSAM(model, loss_fn, rho=rho, flip_ratio=0.4, strength=0.5, warmup=0.0, schedule="constant")
    method.progress = 0.5
    return method


METHODS = {**LIKE_SAM, "ncsam": _ncsam}


@pytest.mark.parametrize("what", SET_UPS)
@pytest.mark.parametrize("name", METHODS)
def test_a_first_step_is_that_on_a_model_that_was_run_once(name, what):
    new = SetsUp(SET_UPS[what])
    settled = SetsUp(SET_UPS[what])
    torch.manual_seed(5)
    settled(INPUTS)
    of_new = _step(METHODS[name](new, LOSS, rho=0.3), new)
    right = _step(METHODS[name](settled, LOSS, rho=0.3), settled)
    for parameter, gradient in right.items():
        torch.testing.assert_close(of_new[parameter], gradient, msg=parameter)
    assert _hooks(new) == _hooks(settled)
    torch.testing.assert_close(new(INPUTS), settled(INPUTS))


def test_one_sam_takes_hooks_that_a_pass_sets_up():
    new, settled = (SetsUp(SET_UPS["forward hook"]) for _ in range(2))
    settled(INPUTS)
    of_new, right = (_step(WITH_ONE_SAM["1-sam"](model, LOSS, rho=0.3), model) for model in (new, settled))
    for parameter, gradient in right.items():
        torch.testing.assert_close(of_new[parameter], gradient)
    torch.testing.assert_close(new(INPUTS), settled(INPUTS))


def test_micro_batches_set_up_once():
    new, settled = (SetsUp(SET_UPS["forward hook"]) for _ in range(2))
    settled(INPUTS)
    methods = [SAM(model, LOSS, rho=0.3) for model in (new, settled)]
    for method in methods:
        method.passes.micro_batch_size = 4
    of_new, right = (_step(method, method.model) for method in methods)
    for parameter, gradient in right.items():
        torch.testing.assert_close(of_new[parameter], gradient)


@pytest.mark.parametrize("what", ["forward hook", "hook on a gradient", "buffer"])
def test_a_training_by_fit_is_that_of_steps_by_hand(what):
    model, twin = SetsUp(SET_UPS[what]), SetsUp(SET_UPS[what])
    labels = NoisyLabels(TARGETS, TARGETS, torch.eye(3, dtype=torch.float64), "given", 0.0, 0, "empirical")
    data = Split(INPUTS, TARGETS)
    method = SAM(model, LOSS, rho=0.2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(method, optimizer, data, labels, data, epochs=3, batch_size=12, seed=0)
    for _ in range(3):
        _step_by_hand(twin, rho=0.2, rate=0.1)
    torch.testing.assert_close(model(INPUTS), twin(INPUTS))
    assert _hooks(model) == _hooks(twin)


def _step_by_hand(model, rho, rate):
    weights = [model.first.weight, model.first.bias, model.last.weight, model.last.bias]
    gradient = torch.autograd.grad(LOSS(model(INPUTS), TARGETS), weights)
    length = torch.stack([part.square().sum() for part in gradient]).sum().sqrt()
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, part in zip(weights, gradient, strict=True):
            weight += rho * part / length
    sharp = torch.autograd.grad(LOSS(model(INPUTS), TARGETS), weights)
    with torch.no_grad():
        for weight, old, part in zip(weights, kept, sharp, strict=True):
            weight.copy_(old - rate * part)


def test_hooks_that_an_object_remembers_are_refused_until_the_model_was_run():
    memory = SimpleNamespace(is_set_up=False)

    def once(model, inputs):
        if not memory.is_set_up:
            model.first.register_forward_hook(lambda *args: 2 * args[-1])
            memory.is_set_up = True

    model = SetsUp(once)
    with pytest.raises(ValueError, match="model: its first pass registers hooks .* run the model once"):
        SAM(model, LOSS, rho=0.1).backward(INPUTS, TARGETS)
    model(INPUTS)
    SAM(model, LOSS, rho=0.1).backward(INPUTS, TARGETS)


@pytest.mark.parametrize("name", WITH_ONE_SAM)
def test_weights_to_train_that_a_pass_makes_are_refused_until_the_model_was_run(name):
    model = SetsUp(lambda model, _: setattr(model, "mixing", nn.Linear(6, 6).double()))
    method = WITH_ONE_SAM[name](model, LOSS, rho=0.1)
    with pytest.raises(ValueError, match=r"'mixing.weight', 'mixing.bias'.* run the model once first"):
        method.backward(INPUTS, TARGETS)
    model(INPUTS)
    method.backward(INPUTS, TARGETS)
    assert model.mixing.weight.grad.norm() > 0


@pytest.mark.parametrize("name", WITH_ONE_SAM)
def test_weights_without_a_shape_are_refused_until_the_model_was_run(name):
    model = nn.Sequential(nn.LazyLinear(6), nn.Tanh(), nn.Linear(6, 3)).double()
    method = WITH_ONE_SAM[name](model, LOSS, rho=0.1)
    with pytest.raises(
        ValueError, match=r"'0.weight' of a lazy layer has no shape yet.*run the model once first"
    ):
        method.backward(INPUTS, TARGETS)
    model(INPUTS)
    method.backward(INPUTS, TARGETS)
    assert model[0].weight.grad.norm() > 0
