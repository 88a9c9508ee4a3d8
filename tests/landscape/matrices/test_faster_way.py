"""Which way products take is measured: the faster one is kept and remembered, and either gives the same products."""

import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from landscape import GaussNewton, Hessian, Objective
from landscape.matrices import faster_way, traced_products
from tests.conftest import build, dense_hessian, some_vectors

cross_entropy = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def nothing_remembered():
    faster_way._TRACED_IS_FASTER.clear()
    yield
    faster_way._TRACED_IS_FASTER.clear()


@dataclass
class Seconds:
    """What a clock would say, and how many tasks each comparison timed."""

    said: list[float]
    asked: list[int]


@pytest.fixture
def seconds(monkeypatch, traced_at_once):
    """Seconds of the ways, in the order (direct, traced with kept results, traced anew), instead of a clock's."""
    said, asked = [2.0, 1.0, 1.0], []

    def least(tasks, _):
        for task in tasks:
            task()
        asked.append(len(tasks))
        return said[: len(tasks)]

    monkeypatch.setattr("landscape.matrices.products.least_seconds", least)
    return Seconds(said, asked)


@pytest.fixture
def traces(monkeypatch):
    """A list that gets an entry for each traced graph."""
    made = []

    def counted(*arguments):
        made.append(arguments[0])
        return linearized(*arguments)

    linearized = traced_products.linearized
    monkeypatch.setattr(traced_products, "linearized", counted)
    return made


def an_objective(**options):
    model, inputs, targets = build("mlp")
    return Objective(model, cross_entropy, (inputs, targets), **options)


@pytest.mark.parametrize(("of_direct", "of_traced", "is_traced"), [(2.0, 1.0, True), (1.0, 2.0, False)])
def test_the_faster_way_is_kept_and_its_products_are_those_of_the_dense_matrix(
    seconds, of_direct, of_traced, is_traced
):
    seconds.said[:] = [of_direct, of_traced, of_traced]
    objective = an_objective(chunk_size=10)
    vectors = some_vectors(objective.n_parameters)
    expected = dense_hessian(*build("mlp")) @ vectors
    for _ in range(2):
        torch.testing.assert_close(objective.hvp(vectors), expected, rtol=1e-9, atol=1e-12)
    assert Hessian(objective).is_traced == is_traced
    assert (objective.memory.used > 0) == is_traced
    assert len(seconds.asked) == 1


def test_what_was_measured_holds_for_the_next_model_of_the_same_form(seconds, traces):
    seconds.said[:] = [1.0, 2.0, 2.0]
    for _ in range(3):
        an_objective().hvp(torch.ones(383, dtype=torch.float64))
    assert len(traces) == len(seconds.asked) == 1


def test_another_form_is_measured_by_itself(seconds):
    for options in ({}, {"chunk_size": 20}, {"memory_budget": 10**9}):
        objective = an_objective(**options)
        objective.hvp(objective.theta)
    assert len(seconds.asked) == 3


def test_another_matrix_is_measured_by_itself(seconds):
    objective = an_objective()
    objective.hvp(objective.theta)
    objective.ggnvp(objective.theta)
    assert len(seconds.asked) == 2
    assert GaussNewton(objective).is_traced


def test_chunks_whose_results_do_not_fit_into_memory_are_timed_as_they_will_be(seconds):
    model, inputs, targets = build("mlp")
    data = inputs.repeat(10, 1, 1, 1), targets.repeat(10)
    seconds.said[:] = [2.0, 1.0, 4.0]
    ways = []
    for budget in (2**30, 2**17):
        objective = Objective(model, cross_entropy, data, chunk_size=37, memory_budget=budget)
        objective.hvp(objective.theta)
        ways.append(Hessian(objective).is_traced)
    # a kept chunk is faster than a direct one, and the mean over those kept and those computed anew is slower
    assert ways == [True, False]
    assert seconds.asked == [2, 3]


@pytest.mark.parametrize("deterministic", [False, True])
def test_nothing_is_timed_where_each_run_must_give_the_same_bits(seconds, deterministic):
    seconds.said[:] = [1.0, 2.0, 2.0]
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        objective = an_objective(**({} if deterministic else {"linearize": "counted"}))
        objective.hvp(objective.theta)
    finally:
        torch.use_deterministic_algorithms(before)
    assert Hessian(objective).is_traced
    assert not seconds.asked


def test_few_products_are_neither_traced_nor_timed(traces):
    objective = an_objective()
    for _ in range(3):
        objective.hvp(objective.theta)
    assert not traces


def test_a_direct_product_runs_the_model_once_however_often_tracing_is_considered():
    objective = an_objective()
    objective.hvp(objective.theta)
    runs = []
    handle = objective.model.register_forward_hook(lambda *_: runs.append(1))
    for _ in range(3):
        objective.hvp(objective.theta)
    handle.remove()
    assert len(runs) == 3


def test_the_least_seconds_are_those_of_the_undisturbed_round(monkeypatch):
    clock = iter([0.0, 0.3, 1.0, 1.1, 2.0, 2.1, 3.0, 3.2, 4.0, 4.9, 5.0, 5.1])
    monkeypatch.setattr(faster_way.time, "perf_counter", lambda: next(clock))
    least = faster_way.least_seconds([lambda: None, lambda: None], torch.device("cpu"))
    assert least == pytest.approx([0.1, 0.1])
    assert not list(clock)


def test_a_word_that_is_no_way_is_refused():
    with pytest.raises(ValueError, match='linearize: must be True, False, "measured" or "counted", got None'):
        an_objective(linearize=None)


def test_a_model_that_is_faster_direct_gives_no_warning(seconds):
    seconds.said[:] = [1.0, 2.0, 2.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        an_objective().hvp(torch.ones(383, dtype=torch.float64))
