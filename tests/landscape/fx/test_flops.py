"""The work of a forward pass is counted for one run, also where torch cannot count its operations."""

import pytest
import torch

from landscape.fx.flops import counted_work, with_flops


def test_work_that_torch_cannot_count_is_the_calls_of_one_run():
    inputs = torch.randn(3, 4)
    nested = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)])

    def run():
        for _ in range(50):
            inputs.relu()
        return torch.nested.to_padded_tensor(torch.nn.functional.linear(nested, torch.randn(5, 4)), 0.0)

    _, calls = counted_work(lambda: inputs.relu())
    flops, of_nested = counted_work(run)
    assert (flops, calls) == (0, 1)
    assert 50 < of_nested < 60


def test_a_lack_of_memory_is_raised_at_once():
    runs = []

    def run():
        runs.append(1)
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        with_flops(run)
    assert len(runs) == 1
