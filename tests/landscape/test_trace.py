import math

import numpy as np
import pytest
import torch

from landscape.trace import hutchinson


def estimate(matrix, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return hutchinson(lambda block: matrix @ block, len(matrix), generator=generator, **options)


def random_symmetric(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(n, n, dtype=torch.float64, generator=generator)
    return factor + factor.T + n * torch.eye(n, dtype=torch.float64)


def test_unbiased_with_a_standard_error_that_is_the_true_spread():
    matrix = random_symmetric()
    draws = [estimate(matrix, seed, rtol=None, max_products=40) for seed in range(400)]
    values = np.array([draw.value for draw in draws])
    errors = np.array([draw.standard_error for draw in draws])
    truth = torch.trace(matrix).item()
    # the mean of 400 draws has a 400th of their variance; 4 of its standard deviations
    assert abs(values.mean() - truth) < 4 * values.std() / 20
    # Var = 2 (||A||_F^2 - ||diag A||^2) / probes for sign vectors (Hutchinson 1990)
    spread = math.sqrt(2 * (matrix.square().sum() - matrix.diag().square().sum()).item() / 40)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=0.05)
    # a t interval with 39 degrees of freedom; 400 draws tell 95% from 91% and 98.5%
    covered = np.mean(np.abs(values - truth) <= 2.023 * errors)
    assert 0.91 <= covered <= 0.985


def test_a_diagonal_operator_is_exact():
    matrix = torch.diag(torch.arange(1.0, 11, dtype=torch.float64))
    result = estimate(matrix)
    assert result.value == pytest.approx(55, rel=1e-14)
    assert result.standard_error == pytest.approx(0, abs=1e-12)


def test_deflated_eigenvectors_leave_only_the_rest_to_sample():
    bulk = random_symmetric() / 100
    outliers = torch.linalg.qr(random_symmetric(seed=1)).Q[:, :3] * 10
    matrix = bulk + outliers @ outliers.T
    values, vectors = torch.linalg.eigh(matrix)
    plain = estimate(matrix, rtol=None, max_products=20)
    deflated = estimate(matrix, rtol=None, max_products=20, deflate=(vectors[:, -3:], values[-3:]))
    truth = torch.trace(matrix).item()
    assert deflated.standard_error < 0.2 * plain.standard_error
    assert abs(deflated.value - truth) < 4 * deflated.standard_error
    complete = estimate(matrix, deflate=(vectors, values))
    assert complete.value == pytest.approx(truth, rel=1e-12)
    assert (complete.standard_error, complete.products) == (0, 0)


def test_stops_when_the_tolerance_is_met_and_says_when_it_is_not():
    matrix = random_symmetric()
    loose = estimate(matrix, rtol=0.2, max_products=500)
    tight = estimate(matrix, rtol=0.01, max_products=500)
    starved = estimate(matrix, rtol=1e-4, max_products=15)
    assert loose.converged
    assert tight.converged
    assert loose.products < tight.products
    assert tight.standard_error <= 0.01 * abs(tight.value)
    assert not starved.converged
    assert starved.products == 15


def test_nan_is_reported_as_nan_and_not_converged():
    result = estimate(torch.full((4, 4), float("nan"), dtype=torch.float64))
    assert math.isnan(result.value)
    assert not result.converged


@pytest.mark.parametrize(
    ("options", "field"), [({"rtol": 0.0}, "rtol"), ({"max_products": 1}, "max_products")]
)
def test_bad_arguments_are_named(options, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        estimate(random_symmetric(), **options)
