"""Results that compress to almost nothing, that hold others, or that are no numbers."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from landscape import (
    Objective,
    filter_normalized_directions,
    line,
    load,
    relative_flatness,
    save,
    sharpness,
)
from tests.conftest import build


@pytest.fixture
def objective():
    model, inputs, targets = build("mlp")
    return Objective(model.float(), nn.CrossEntropyLoss(), (inputs.float(), targets))


def test_zeros_that_compress_to_almost_nothing_are_read_again(tmp_path, objective):
    """`load` took 640 MB of zeros in a file of 700 kB for an attack."""
    vectors = torch.zeros(40_000_000, 2)
    made = dataclasses.replace(filter_normalized_directions(objective, 2), vectors=vectors)
    save(tmp_path / "zeros.h5", "directions", made)
    assert torch.equal(load(tmp_path / "zeros.h5", "directions").vectors, vectors)


@pytest.mark.parametrize("inner", ["starts", "parameter"])
def test_an_inner_result_with_the_name_of_a_field_or_dimension_is_named(tmp_path, objective, inner):
    file = tmp_path / "nested.h5"
    profile = line(objective, filter_normalized_directions(objective, 1), steps=3)
    save(file, "a", profile)
    save(file, f"a/{inner}", profile)
    with pytest.raises(ValueError, match=f"^name: 'a' holds the result '{inner}'"):
        save(file, "a", sharpness(objective, restarts=0))
    np.testing.assert_array_equal(load(file, f"a/{inner}").loss, profile.loss)
    np.testing.assert_array_equal(load(file, "a").loss, profile.loss)


def test_the_flatness_of_a_layer_with_a_number_that_is_none_is_none(objective):
    model, inputs, targets = build("mlp")
    with torch.no_grad():
        model[-1].weight[0, 0] = float("nan")
    found = relative_flatness(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)))
    assert np.isnan([found.value, found.standard_error, found.low, found.high]).all()
    assert not found.converged
