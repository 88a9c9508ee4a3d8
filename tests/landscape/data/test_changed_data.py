"""Data that others than torch change in memory that they share with it are refused."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from tests.conftest import build

cross_entropy = nn.CrossEntropyLoss()


@pytest.mark.parametrize("change", [lambda x: x.__imul__(2), np.random.default_rng(0).shuffle])
def test_data_that_numpy_changes_in_memory_it_shares_are_refused(change):
    array = np.random.default_rng(0).standard_normal((10, 4))
    objective = Objective(
        nn.Linear(4, 3).double(), cross_entropy, (torch.from_numpy(array), torch.arange(10) % 3)
    )
    objective.value()
    change(array)
    with pytest.raises(ValueError, match=r"^data: were changed in place"):
        objective.value()


def as_another_process(inputs):
    """Writes so that torch of this process counts no change."""
    inputs.new_empty(0).set_(inputs.untyped_storage()).mul_(2)


@pytest.mark.parametrize(
    ("placed", "write"),
    [
        (torch.Tensor.share_memory_, as_another_process),
        (torch.Tensor.share_memory_, lambda inputs: np.multiply(inputs.numpy(), 2, out=inputs.numpy())),
        (torch.Tensor.clone, lambda inputs: np.multiply(inputs.numpy(), 2, out=inputs.numpy())),
    ],
    ids=["by a process", "shared memory by NumPy", "memory that NumPy gets later"],
)
def test_data_that_others_change_in_memory_of_torch_are_refused(placed, write):
    model, inputs, targets = build("mlp")
    inputs = placed(inputs)
    objective = Objective(model, cross_entropy, (inputs, targets))
    objective.value()
    write(inputs)
    with pytest.raises(ValueError, match=r"^data: were changed in place"):
        objective.value()
