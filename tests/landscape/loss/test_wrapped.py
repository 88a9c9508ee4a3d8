"""A model in the place of an Objective is refused by every function, with the remedy."""

import inspect

import pytest
from torch import nn

import landscape

FUNCTIONS = [
    name
    for name in landscape.__all__
    if inspect.isfunction(function := getattr(landscape, name))
    and next(iter(inspect.signature(function).parameters), "") in ("objective", "objectives")
]


def arguments(name):
    """Something for each further argument that must be given."""
    _, *others = inspect.signature(getattr(landscape, name)).parameters.values()
    return {each.name: None for each in others if each.default is inspect.Parameter.empty}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("given", [nn.Linear(2, 2), {"clean": nn.Linear(2, 2)}])
def test_a_bare_model_is_refused_with_the_remedy(name, given):
    with pytest.raises(TypeError, match=r"wrap it: Objective\(model, loss_fn, data\)"):
        getattr(landscape, name)(given, **arguments(name))


def test_there_are_such_functions():
    assert len(FUNCTIONS) >= 20
