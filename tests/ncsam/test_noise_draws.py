from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from ncsam.label_noise.draws import (
    choose_each,
    inclusion_probabilities,
    largest_remainder,
    normal,
    sample_of_size,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_normal_numbers_are_normal():
    assert scipy.stats.kstest(normal((5000,), seeded()).numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_remainders_are_rounded_up(seed):
    parts = [Fraction(int(p)) for p in np.random.default_rng(seed).integers(1, 10**6, size=12)]
    total = 100
    quotas = [total * part / sum(parts) for part in parts]
    counts = [int(q) for q in quotas]
    order = sorted(range(12), key=lambda i: quotas[i] - counts[i], reverse=True)
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    found = largest_remainder(torch.tensor([float(q) for q in quotas]).double(), total, seeded(seed))
    assert found.tolist() == counts


def test_a_rounding_error_takes_nothing_from_a_whole_quota():
    # in floating point the first is a little above 3, the second a little below 1
    quotas = torch.tensor([3 * 0.1 * 10, (1 - 0.9) * 10, 0.0], dtype=torch.float64)
    assert largest_remainder(quotas, 4, seeded()).tolist() == [3, 1, 0]


@pytest.mark.parametrize("size", [0, 1, 7, 20, 29, 30])
def test_inclusion_probabilities_are_in_proportion_to_the_weights_up_to_one(size):
    weights = torch.from_numpy(np.random.default_rng(0).lognormal(sigma=2, size=30))
    found = inclusion_probabilities(torch.cat([weights, torch.zeros(3).double()]), size)
    assert found[30:].tolist() == [0, 0, 0]
    if size == 30:
        truth = torch.ones(30).double()
    else:
        factor = scipy.optimize.brentq(
            lambda k: (k * weights).clamp(max=1).sum().item() - size, 0, 1e9, xtol=1e-300, rtol=1e-15
        )
        truth = (factor * weights).clamp(max=1)
    torch.testing.assert_close(found[:30], truth, rtol=1e-9, atol=1e-12)


def test_a_sample_has_its_size_and_each_member_its_probability():
    weights = torch.tensor([0.1, 0.2, 0.3, 0.5, 1.0, 4.0, 4.0, 0.0], dtype=torch.float64)
    draws = torch.stack([sample_of_size(weights, 4, seeded(seed)) for seed in range(4000)])
    assert (draws.sum(1) == 4).all()
    truth = inclusion_probabilities(weights, 4)
    for count, probability in zip(draws.sum(0).tolist(), truth.tolist(), strict=True):
        assert scipy.stats.binomtest(count, 4000, probability).pvalue > 1e-4


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_has_its_size_for_any_weights(seed):
    weights = torch.from_numpy(np.random.default_rng(seed).lognormal(sigma=30, size=500))
    for size in (0, 1, 250, 499, 500):
        assert int(sample_of_size(weights, size, seeded(seed)).sum()) == size


def test_columns_are_chosen_in_proportion_to_the_weights():
    weights = torch.tensor([0.0, 1.0, 2.0, 0.0, 5.0], dtype=torch.float64).expand(20_000, 5)
    counts = choose_each(weights, seeded()).bincount(minlength=5)
    assert counts[[0, 3]].tolist() == [0, 0]
    expected = 20_000 * np.array([1, 2, 5]) / 8
    assert scipy.stats.chisquare(counts[[1, 2, 4]].tolist(), expected).pvalue > 1e-3
