"""The trace by the help of a part of the samples, against dense matrices."""

import functools
import math

import numpy as np
import pytest
import torch

from landscape.krylov import SymmetricOperator, trace_and_squared_norm, two_level_trace

SAMPLES, N = 4000, 60


@functools.cache
def outer_products():
    """Vectors and weights of samples: the matrix of samples is the mean of weight * vector vector^T."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.exp(-0.05 * torch.arange(N, dtype=torch.float64))
    rotation = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=generator)).Q
    vectors = torch.randn(SAMPLES, N, dtype=torch.float64, generator=generator) * scales @ rotation
    weights = torch.where(torch.rand(SAMPLES, generator=generator) < 0.2, -0.5, 1.0).double()
    return vectors, weights


def matrix_of(rows):
    vectors, weights = (of_all[rows] for of_all in outer_products())
    return (vectors.T * weights) @ vectors / len(vectors)


@functools.cache
def whole():
    return matrix_of(slice(None))


def estimated(seed, **options):
    """The estimate with the first eighth of the samples in a random order."""
    generator = torch.Generator().manual_seed(seed)
    part = matrix_of(torch.randperm(SAMPLES, generator=generator)[: SAMPLES // 8])
    a, b = map(SymmetricOperator.of_matrix, (whole(), part))
    return two_level_trace(a, b, 1 / 8, generator=generator, **options)


@pytest.mark.parametrize(
    "options",
    [{"rtol": 0.08}, {"rtol": None, "max_products": 14}, {"rtol": 0.08, "method": "hutchinson"}],
    ids=["until the tolerance", "whole budget", "Hutchinson on the part"],
)
def test_95_percent_intervals_hold_the_trace_and_the_squared_norm_of_the_whole(options):
    draws = [estimated(seed, **options) for seed in range(100)]
    trace, square = whole().trace().item(), whole().square().sum().item()
    errors = np.array([draw.trace.value for draw in draws]) - trace
    # of 100 draws with 95%, fewer than 88 hold 4 times in 1,000
    assert sum(draw.trace.low <= trace <= draw.trace.high for draw in draws) >= 88
    assert sum(draw.square.low <= square <= draw.square.high for draw in draws) >= 88
    assert abs(errors.mean()) < 3.5 * errors.std() / math.sqrt(len(draws))
    stated = np.sqrt(np.mean([draw.trace.standard_error**2 for draw in draws]))
    assert 0.7 < errors.std() / stated < 1.3


def test_a_part_that_resembles_the_whole_saves_half_of_the_products():
    spent = [estimated(seed, rtol=0.03).products for seed in range(5)]
    plain = [
        trace_and_squared_norm(
            SymmetricOperator.of_matrix(whole()), rtol=0.03, generator=torch.Generator().manual_seed(seed)
        ).products
        for seed in range(5)
    ]
    assert np.mean(spent) < 0.5 * np.mean(plain)


def test_a_part_without_likeness_costs_products_and_leaves_no_bias():
    generator = torch.Generator().manual_seed(0)
    operators = [SymmetricOperator.of_matrix(matrix) for matrix in (whole(), -whole())]
    draws = [
        two_level_trace(
            *operators, 1 / 8, method="hutchinson", rtol=None, max_products=40, generator=generator
        )
        for _ in range(60)
    ]
    errors = np.array([draw.trace.value for draw in draws]) - whole().trace().item()
    assert abs(errors.mean()) < 3.5 * errors.std() / math.sqrt(len(draws))


def test_each_product_is_counted_and_the_budget_is_kept():
    counts = [0, 0]

    def counted(place):
        def product(block):
            counts[place] += block.shape[1]
            return whole() @ block

        return SymmetricOperator(product, N)

    found = two_level_trace(
        counted(0), counted(1), 1 / 4, rtol=0.05, max_products=40, generator=torch.Generator().manual_seed(0)
    )
    assert found.products == math.ceil(counts[0] + counts[1] / 4) <= 40
    # the operators are equal, so that the differences are known from the first look
    assert counts[0] == 6
    assert found.converged


@pytest.mark.parametrize("budget", [14, 25, 40])
def test_without_a_tolerance_less_than_a_probe_of_the_budget_is_left(budget):
    assert budget - 1 - 1 / 8 < estimated(0, rtol=None, max_products=budget).products <= budget


def test_more_products_on_the_part_than_the_budget_has_on_all_make_the_error_smaller():
    def error(most):
        draws = [estimated(seed, rtol=None, max_products=14, max_on_part=most) for seed in range(10)]
        return np.mean([draw.trace.standard_error for draw in draws])

    assert error(40) < 0.8 * error(14)


def test_nan_is_reported_as_nan_and_not_converged():
    broken = SymmetricOperator(lambda block: block * math.nan, N)
    found = two_level_trace(broken, broken, 1 / 8, generator=torch.Generator().manual_seed(0))
    assert math.isnan(found.trace.value)
    assert not found.converged


def test_too_few_products_are_named():
    with pytest.raises(ValueError, match="max_products: .* at least 12"):
        estimated(0, max_products=8)
