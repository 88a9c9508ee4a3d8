"""Checks of draws leave the generators of other threads alone, and run models that take no context around a pass."""

import itertools
import random
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import _get_current_dispatch_mode

from landscape import Objective
from tests.conformance.right import D, assert_right, network, samples


def numpys_old():
    return np.random.rand()  # noqa: NPY002


@contextmanager
def drawn_by_another_thread(draw):
    """A block in which another thread draws all the time; gives the numbers."""
    numbers, ends = [], threading.Event()

    def draw_on():
        while not ends.is_set():
            numbers.append(draw())
            time.sleep(1e-4)

    thread = threading.Thread(target=draw_on)
    thread.start()
    try:
        yield numbers
    finally:
        ends.set()
        thread.join()


class Slow(nn.Module):
    """A network whose passes leave other threads time to draw; a function may alter its outputs."""

    def __init__(self, altered=lambda outputs: outputs):
        super().__init__()
        self.inner, self.altered = network(), altered

    def forward(self, x):
        time.sleep(2e-3)
        return self.altered(self.inner(x))


@pytest.mark.parametrize("draw", [random.random, numpys_old])
def test_another_thread_draws_on_while_a_model_is_checked(draw):
    with drawn_by_another_thread(draw) as numbers:
        objective = Objective(Slow(), cross_entropy, samples())
    assert len(set(numbers)) == len(numbers) > 10
    assert_right(objective, Slow(), samples())


@pytest.mark.parametrize("draw", [random.random, numpys_old])
def test_draws_of_another_thread_cost_few_passes(draw):
    def passes():
        # what an iterator keeps is not put back by the checks
        count = itertools.count()

        def counted(model, batch):
            next(count)
            return model(batch[0])

        Objective(Slow(), lambda outputs, batch: cross_entropy(outputs, batch[1]), samples(), forward=counted)
        return next(count)

    alone = passes()
    with drawn_by_another_thread(draw):
        assert passes() <= alone + 10


@pytest.mark.parametrize("draw", [random.random, numpys_old])
def test_a_model_that_draws_beside_another_thread_is_refused(draw):
    with (
        drawn_by_another_thread(lambda: 0),
        pytest.raises(ValueError, match="^model: its outputs for a sample differ from one run of the same"),
    ):
        Objective(Slow(lambda outputs: outputs * draw()), cross_entropy, samples())


def test_a_model_that_draws_from_torch_beside_another_thread_is_refused():
    with (
        drawn_by_another_thread(random.random) as numbers,
        pytest.raises(ValueError, match="^model: its outputs for a sample differ from one run of the same"),
    ):
        Objective(Slow(lambda outputs: outputs * (torch.rand(()) >= 0.01)), cross_entropy, samples())
    assert len(set(numbers)) == len(numbers)


class Attending(nn.Module):
    """A network with flex_attention, which torch runs as one operation of a higher order."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.last = nn.Linear(16, 48), nn.Linear(16, 3)

    def forward(self, x):
        query, key, value = self.heads(x)[:, None].chunk(3, -1)
        return self.last(flex_attention(query, key, value)[:, 0].mean(1))


class Choosing(nn.Module):
    """A network with torch.cond, or with the branch that this takes."""

    def __init__(self, by_cond=True):
        super().__init__()
        self.inner, self.by_cond = network(), by_cond

    def forward(self, x):
        hidden = self.inner(x)
        if not self.by_cond:
            return hidden.cos()
        return torch.cond(x.sum() > 1e9, lambda h: h.sin(), lambda h: h.cos(), (hidden,))


@pytest.mark.filterwarnings("ignore")
def test_a_model_with_flex_attention_has_a_loss_and_runs_afterward():
    torch.manual_seed(1)
    data = torch.randn(20, 8, 16), torch.randint(3, (20,))
    objective = Objective(Attending(), cross_entropy, data)
    with torch.no_grad():
        expected = cross_entropy(Attending()(data[0]), data[1]).item()
    assert objective.value() == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_model_with_cond_has_the_gradient_of_its_branch():
    found, expected = (
        Objective(Choosing(by_cond).to(D), cross_entropy, samples()).gradient() for by_cond in (True, False)
    )
    torch.testing.assert_close(found, expected)


class Alone(nn.Module):
    """A network that fails in any context around its operations."""

    def __init__(self, altered):
        super().__init__()
        self.inner, self.altered = network(), altered

    def forward(self, x):
        if _get_current_dispatch_mode() is not None:
            raise NotImplementedError("no rule for this context")
        return self.altered(self.inner(x))


def test_a_model_that_takes_no_context_is_measured():
    objective = Objective(Alone(lambda outputs: outputs), cross_entropy, samples())
    assert objective.value() == pytest.approx(cross_entropy(network()(samples()[0]), samples()[1]).item())


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), random.random, numpys_old])
def test_a_model_that_takes_no_context_and_draws_is_refused(draw):
    with pytest.raises(ValueError, match="^model: its outputs for a sample differ from one run of the same"):
        Objective(Alone(lambda outputs: outputs * draw()), cross_entropy, samples())
