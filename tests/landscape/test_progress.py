"""Every measurement that takes long tells how far it is."""

import pytest
import torch
from torch import nn

import landscape
from landscape import Objective
from landscape.progress import counted

MEASUREMENTS = {
    "top_eigenvalues": {},
    "trace": {"method": "hutchinson"},
    "layer_traces": {},
    "diagonal": {"rtol": None, "max_products": 5},
    "spectral_density": {"steps": 4, "probes": 2},
    "relative_flatness": {},
    "curvature_parts": {"max_products": 20},
    "sharpness": {"restarts": 1},
    "average_sharpness": {"max_draws": 8},
    "pac_bayes_sigma": {"max_draws": 8},
    "gradient_noise": {"pieces": 4},
}


@pytest.fixture(scope="module")
def objective():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    return Objective(model, nn.CrossEntropyLoss(), (torch.randn(20, 3), torch.arange(20) % 3))


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_tells_its_progress_and_at_last_that_all_is_done(name, objective):
    told = []
    getattr(landscape, name)(objective, progress=lambda *seen: told.append(seen), **MEASUREMENTS[name])
    assert len(told) > 1
    done, total = told[-1]
    assert done == total
    assert all(0 < done <= total for done, total in told)


@pytest.mark.parametrize("name", ["top_eigenvalues", "trace", "spectral_density"])
def test_the_products_that_are_told_are_those_of_the_result(name, objective):
    told = []
    found = getattr(landscape, name)(
        objective, progress=lambda *seen: told.append(seen), **MEASUREMENTS[name]
    )
    assert told[-1] == (found.products, found.products)


@pytest.mark.parametrize(
    ("measure", "passes"),
    [
        (lambda objective: landscape.top_eigenvalues(objective, k=2), 1),
        (lambda objective: landscape.trace(objective, rtol=0.5), 1),
        (lambda objective: landscape.sharpness(objective, rho=0.01), 2),
        (lambda objective: objective.evaluate(), 1),
    ],
    ids=["eigenvalues", "trace", "sharpness", "loss"],
)
def test_a_sampling_error_tells_of_each_group_in_each_pass(measure, passes, objective):
    told = []
    landscape.sampling_error(
        objective, measure(objective), groups=10, progress=lambda *seen: told.append(seen)
    )
    steps = 10 * passes
    # the whole is told at the end of the work alone
    assert [done for done, _ in told] == [*range(1, steps + 1), steps]
    assert {total for _, total in told[: steps - 1]} == {steps}
    assert told[-1] == (steps, steps)


def test_true_writes_a_line_on_the_terminal(objective, capsys):
    landscape.trace(objective, progress=True)
    said = capsys.readouterr().err
    assert "trace: " in said
    assert "products, 0 s left" in said
    assert said.endswith("\n")
    landscape.trace(objective)
    assert capsys.readouterr().err == ""


def test_a_budget_that_is_exceeded_is_not_taken_for_the_end():
    told = []
    with counted(2, lambda *seen: told.append(seen), "title", "draws") as spend:
        spend(1)
        spend(2)
    assert told == [(1, 2), (3, 4), (3, 3)]
