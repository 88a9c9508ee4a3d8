"""Means that are equal decimals are equal, whatever the order of the runs behind them."""

import itertools

import numpy as np
import pandas as pd
import pytest

from analysis.statistics import conditional_information, rank_association
from analysis.statistics.methods import without_rounding
from analysis.statistics.ranking import rank_methods

pytestmark = pytest.mark.usefixtures("quick_judgements")

# the first two have the mean 0.602, and the third pair 0.591: sums of floats differ in the last bit, by their order
ACCURACIES = np.array(
    [
        [0.601, 0.602, 0.603],
        [0.599, 0.605, 0.602],
        [0.590, 0.591, 0.592],
        [0.596, 0.587, 0.590],
        [0.580, 0.581, 0.582],
        [0.583, 0.577, 0.583],
        [0.570, 0.572, 0.571],
    ]
)
METHODS = np.repeat(np.arange(7), 3)
MEASURE = np.repeat([0.0, 2.0, 1.0, 4.0, 3.0, 6.0, 5.0], 3)


def association(order, **options):
    return rank_association(
        np.zeros(21), METHODS, METHODS, MEASURE, ACCURACIES[:, list(order)].ravel(), **options
    ).these


@pytest.mark.parametrize("given", [None, np.repeat(np.arange(7) ** 2.0, 3)])
def test_names_of_seeds_change_no_association(given):
    found = {association(order, given=given) for order in itertools.permutations(range(3))}
    assert len(found) == 1


def test_names_of_seeds_change_no_information():
    options = pd.DataFrame({"option": METHODS % 2})
    found = {
        conditional_information(
            np.zeros(21), METHODS, MEASURE, ACCURACIES[:, list(order)].ravel(), options
        ).these
        for order in itertools.permutations(range(3))
    }
    assert len(found) == 1


def test_equal_scores_share_a_rank_whatever_their_last_bit():
    scores = [[0.1 + 0.2, 0.3, 0.0]] * 2
    assert rank_methods(["a", "b", "c"], scores, ["x", "y"]).ranks.tolist() == [[1.5, 1.5, 3.0]] * 2


@pytest.mark.parametrize("number", [0.0, np.nan, np.inf, -np.inf, 1e-300, 1e308, -0.602])
def test_a_number_of_any_size_stays_what_it_is(number):
    np.testing.assert_allclose(without_rounding(np.array([number]), np.abs([number])), [number], rtol=1e-11)


def test_small_means_differ_beside_large_ones():
    means = np.array([1e-9, 2e-9, 1e9])
    assert len(set(without_rounding(means, means))) == 3
