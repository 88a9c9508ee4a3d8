"""Losses and derivatives that are no numbers: the weight or the sample that makes them so is named, once."""

import math
import warnings

import pytest
import torch
from torch import nn

from landscape import Objective, sharpness, top_eigenvalues, trace
from tests.conformance.right import network, samples

x, y = samples(120, torch.float32)


class Of(nn.Module):
    """A function of a layer's scores."""

    def __init__(self, of):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.of = nn.Linear(5, 3), of

    def forward(self, inputs):
        return self.of(self.layer(inputs))


def with_numbers(place, number):
    inputs = x.clone()
    inputs[place] = number
    return inputs


def with_weights(number):
    model = network().float()
    model[2].bias.data[1] = number
    return model


NO_NUMBERS = {
    "weight NaN": (with_weights(math.nan), x, r"^model: '2.bias' holds 1 of 3 numbers that are NaN"),
    "weight infinite": (with_weights(math.inf), x, r"^model: '2.bias' holds 1 of 3 numbers"),
    "input NaN": (
        network().float(),
        with_numbers(77, math.nan),
        "^data: the loss of sample 77 .* its inputs hold NaN",
    ),
    "output": (
        Of(lambda scores: scores.log()),
        x,
        "^data: the loss of sample .* the model's outputs are not",
    ),
    "derivative": (
        Of(lambda scores: torch.cat([scores[:, :2], (scores[:, 2:] * 0).sqrt()], 1)),
        x,
        "^model: its losses are numbers, and their derivatives are not",
    ),
}
MEASURES = {
    "value": Objective.value,
    "gradient": Objective.gradient,
    "eigenvalue": top_eigenvalues,
    "trace": trace,
}


@pytest.mark.parametrize("chunk_size", [25, 512])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("model", "inputs", "says"), NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_a_measure_that_is_no_number_names_the_weight_or_sample_once(
    model, inputs, says, measure, chunk_size
):
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, y), chunk_size=chunk_size)
    if "derivatives" in says and measure == "value":
        return
    with pytest.warns(UserWarning, match=says):
        MEASURES[measure](objective)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MEASURES[measure](objective)


def test_derivatives_that_are_too_large_for_half_precision_have_float32_as_the_remedy():
    # the Hessian at 0 has entries near 3e4^2, and float16 ends at 65504
    model = Of(lambda scores: (3e4 * scores).tanh())
    with torch.no_grad():
        model.layer.weight.zero_()
        model.layer.bias.zero_()
    objective = Objective(model.half(), nn.CrossEntropyLoss(), (x.half(), y))
    with pytest.warns(
        UserWarning,
        match=r"torch\.float16 may be too short for them: give the Objective dtype=torch\.float32",
    ):
        assert not top_eigenvalues(objective).converged.any()
    whole = Objective(model.half(), nn.CrossEntropyLoss(), (x.half(), y), dtype=torch.float32)
    assert top_eigenvalues(whole).converged.all()


def test_weights_elsewhere_that_give_no_number_are_no_mistake():
    objective = Objective(network().float(), nn.CrossEntropyLoss(), (x, y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(objective.value(math.nan * objective.theta))


REGULARIZERS = {
    "value": (lambda weights: weights["2.bias"].log().sum(), "^regularizer: its value is no number"),
    "gradient": (lambda weights: weights["2.bias"].sqrt().sum(), "^regularizer: .* its derivatives are not"),
    "second derivative": (
        lambda weights: weights["2.bias"].norm() ** 2,
        "^regularizer: its gradient is a number, and its second derivatives are not",
    ),
}


@pytest.mark.parametrize("name", REGULARIZERS)
def test_the_regularizer_is_named_where_it_is_no_number(name):
    regularizer, message = REGULARIZERS[name]
    model = network().float()
    nn.init.zeros_(model[2].bias)
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y), regularizer=regularizer)
    with pytest.warns(UserWarning, match=message):
        objective.hvp(torch.ones_like(objective.theta))


class NormAtZero(nn.Module):
    """The square of a norm that is 0, of which torch has a first derivative and no second one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.zero = nn.Linear(5, 3), nn.Parameter(torch.zeros(2))

    def forward(self, inputs):
        return self.layer(inputs) + self.zero.norm() ** 2


def test_second_derivatives_are_named_where_they_alone_are_no_numbers():
    objective = Objective(NormAtZero(), lambda scores, _: scores.square().mean(), (x, y))
    with pytest.warns(UserWarning, match="^model: its losses and their gradient are numbers, and second"):
        objective.hvp(torch.ones_like(objective.theta))


def test_a_sharpness_is_found_without_eigenvectors_that_are_no_numbers():
    objective = Objective(NormAtZero(), lambda scores, _: scores.square().mean(), (x, y))
    with pytest.warns(UserWarning, match="second derivatives are not"):
        found = sharpness(objective, rho=0.05, steps=10, restarts=1)
    assert found.value >= found.one_step > 0
    assert found.directions == 0
