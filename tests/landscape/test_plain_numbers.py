"""Numbers of Python, NumPy and torch are taken as arguments; what is no number is refused by the argument's name."""

import inspect

import numpy as np
import pytest
import torch

import landscape
from landscape.plain_numbers import KINDS, with_plain_numbers
from tests.conftest import build


@with_plain_numbers
def given(count: "int", size: "float | None" = 1.0, words: "str" = ""):
    return count, size, words


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((3, 0.5), (3, 0.5)),
        ((np.int64(3), np.float32(0.5)), (3, 0.5)),
        ((torch.tensor(3), torch.tensor(0.5)), (3, 0.5)),
        ((3.0, 2), (3, 2)),
        ((1e9, None), (1_000_000_000, None)),
        ((-1, float("inf")), (-1, float("inf"))),
        ((10**400, 10**400), (10**400, 10**400)),
    ],
)
def test_numbers_become_those_of_python(arguments, expected):
    found = given(*arguments, words="as they are")
    assert found == (*expected, "as they are")
    assert [type(part) for part in found[:2]] == [type(part) for part in expected]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("3",), TypeError, "count: must be a whole number, got '3'"),
        ((None,), TypeError, "count: must be a whole number, got None"),
        ((True,), TypeError, "count: must be a whole number, got True"),
        ((2.5,), ValueError, "count: must be a whole number, got 2.5"),
        ((float("nan"),), ValueError, "count: must be a whole number, got nan"),
        ((float("inf"),), ValueError, "count: must be a whole number, got inf"),
        ((torch.ones(2),), TypeError, "count: must be a whole number, got tensor"),
        ((3, "1%"), TypeError, "size: must be a number, got '1%'"),
        ((3, 1j), TypeError, "size: must be a number, got 1j"),
        ((3, float("nan")), ValueError, "size: must be a number, got nan"),
        ((3, np.bool_(True)), TypeError, "size: must be a number, got True"),
        ((), TypeError, r"given\(\) missing 1 required positional argument: 'count'"),
    ],
)
def test_what_is_no_number_is_refused_by_name(arguments, error, words):
    with pytest.raises(error, match=f"^{words}"):
        given(*arguments)


def is_numeric(parameter):
    return str(parameter.annotation).removesuffix(" | None") in KINDS


def numeric_arguments():
    """(measure, argument) of all that take an Objective."""
    for name in landscape.__all__:
        measure = getattr(landscape, name)
        if not inspect.isfunction(measure):
            continue
        parameters = inspect.signature(measure).parameters
        for argument, parameter in parameters.items():
            if "objective" in parameters and is_numeric(parameter):
                yield name, argument


@pytest.mark.parametrize(("measure", "argument"), list(numeric_arguments()))
def test_every_measure_refuses_words_for_its_numbers(measure, argument):
    model, inputs, targets = build("mlp")
    objective = landscape.Objective(model, torch.nn.CrossEntropyLoss(), (inputs, targets))
    function = getattr(landscape, measure)
    needed = {
        name: 1 if is_numeric(parameter) else None
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    }
    with pytest.raises(TypeError, match=f"^{argument}: must be a (whole )?number, got 'many'"):
        function(**{**needed, argument: "many", "objective": objective})


@pytest.mark.parametrize("setting", ["chunk_size", "memory_budget"])
def test_the_settings_of_an_objective_are_numbers(setting):
    model, inputs, targets = build("mlp")
    with pytest.raises(TypeError, match=f"^{setting}: must be a whole number, got '1 GB'"):
        landscape.Objective(model, torch.nn.CrossEntropyLoss(), (inputs, targets), **{setting: "1 GB"})
