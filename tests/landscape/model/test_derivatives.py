"""A derivative that fails leaves neither hooks nor gradients behind, which would keep the weights in memory."""

import gc
import weakref

import pytest
import torch

from landscape.model.derivatives import add_derivative, gradient_edges


class Failing(torch.autograd.Function):
    """The identity, whose backward pass fails as one without memory does."""

    @staticmethod
    def forward(_ctx, x):
        return x.clone()

    @staticmethod
    def backward(_ctx, _gradient):
        raise RuntimeError("out of memory")


def fail_twice(weights):
    loss = (Failing.apply(weights[0] * weights[1]) * weights[1]).sum()
    with pytest.raises(RuntimeError, match="out of memory"):
        gradient_edges(loss, weights)
    with pytest.raises(RuntimeError, match="out of memory"):
        add_derivative([loss], weights, [torch.zeros(3), torch.zeros(3)])


def test_a_failed_derivative_leaves_nothing_behind():
    weights = [torch.ones(3, requires_grad=True) for _ in range(2)]
    fail_twice(weights)
    assert all(weight.grad is None and not weight._backward_hooks for weight in weights)
    alive = [weakref.ref(weight) for weight in weights]
    del weights
    gc.collect()
    assert [each() for each in alive] == [None, None]
