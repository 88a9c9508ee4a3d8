"""How well an order of samples finds wrong labels: numbers counted by hand, and intervals by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from ncsam.detection import (
    quality_of,
    ranked,
)

NAN = float("nan")


def test_quality_of_an_order_that_can_be_counted_by_hand():
    # of the six pairs of a wrong and a right label, four are in order and one is equal
    scores, is_wrong = [4.0, 3.0, 3.0, 2.0, 1.0], [True, False, True, False, False]
    found = quality_of(ranked("any", scores), is_wrong)
    assert found.auroc.value == pytest.approx((3 + 2 + 0.5) / 6)
    # the cut after two falls into two equal scores, one of which is wrong
    assert found.precision_at_rate.value == pytest.approx((1 + 0.5) / 2)
    assert (found.wrong, found.samples, found.unscored) == (2, 5, 0)
    from sklearn.metrics import average_precision_score, roc_auc_score

    assert found.average_precision.value == pytest.approx(average_precision_score(is_wrong, scores))
    assert found.auroc.value == pytest.approx(roc_auc_score(is_wrong, scores))


def test_a_quality_is_one_line_that_a_notebook_can_show():
    found = quality_of(ranked("loss", [5.0, 4.0, 3.0, 2.0, NAN]), [True, True, False, False, False])
    assert repr(found) == (
        "DetectionQuality(loss: auroc 1.000 [0.386, 1.000], average precision 1.000 [0.342, 1.000], "
        "precision at rate 1.000 [0.342, 1.000]; 2 of 4 wrong, 1 without a score)"
    )


def test_samples_without_a_score_are_left_out_and_counted():
    scores, is_wrong = [NAN, 4.0, 3.0, 2.0, 1.0, NAN], [True, True, True, False, False, False]
    found = quality_of(ranked("any", scores), is_wrong)
    assert (found.samples, found.unscored, found.auroc.value) == (4, 2, 1)
    with pytest.raises(ValueError, match=r"^is_wrong: 1 of 3 labels"):
        quality_of(ranked("any", [NAN, 2.0, 1.0, 0.0]), [True, True, False, False])
    with pytest.raises(ValueError, match=r"^is_wrong: must be \(2,\)"):
        quality_of(ranked("any", [1.0, 2.0]), [True])


def normal_quality(rate, distance):
    """AUROC, average precision and precision at the rate of normal scores, of endless many samples."""
    thresholds = np.linspace(-9, 9 + distance, 200_001)
    recall, others = norm.sf(thresholds - distance), norm.sf(thresholds)
    precision = rate * recall / (rate * recall + (1 - rate) * others)
    at_rate = np.argmin(np.abs(rate * recall + (1 - rate) * others - rate))
    return norm.cdf(distance / math.sqrt(2)), -np.trapezoid(precision, recall), precision[at_rate]


@pytest.mark.parametrize(
    ("wrong", "right", "distance", "most"),
    [
        # the last: how much wider than the middle 95% of the numbers themselves an interval may be
        (30, 120, 1, 1.3),
        (30, 120, 2, 1.4),
        (30, 120, 3, 1.9),
        (5, 20, 1, 1.2),
        (5, 20, 2, 1.6),
        (5, 20, 3, 3),
        (60, 40, 1, 2.2),
        (60, 40, 2, 2.2),
        (60, 40, 3, 4.5),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say_and_are_not_idle(wrong, right, distance, most):
    generator, runs = np.random.default_rng(0), 300
    truth = normal_quality(wrong / (wrong + right), distance)
    is_wrong = np.arange(wrong + right) < wrong
    found = []
    for _ in range(runs):
        quality = quality_of(
            ranked("any", generator.normal(size=len(is_wrong)) + distance * is_wrong), is_wrong
        )
        numbers = (quality.auroc, quality.average_precision, quality.precision_at_rate)
        found.append([(each.value, each.low, each.high) for each in numbers])
    value, low, high = np.moveaxis(np.array(found), 2, 0)
    hits = ((low <= truth) & (truth <= high)).mean(0)
    assert (hits >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)).all(), hits
    spread = np.quantile(value, 0.975, axis=0) - np.quantile(value, 0.025, axis=0)
    width = (high - low).mean(0)
    assert (width < most * spread).all(), width / spread


@pytest.mark.parametrize(("wrong", "right"), [(2, 2), (2, 200), (30, 120)])
def test_an_order_without_a_fault_may_be_chance(wrong, right):
    is_wrong = np.arange(wrong + right) < wrong
    perfect = quality_of(ranked("any", 1.0 * is_wrong), is_wrong)
    for found in (perfect.auroc, perfect.average_precision, perfect.precision_at_rate):
        assert (found.value, found.high) == (1, pytest.approx(1))
        assert 0.2 < found.low < 1 - 1 / (wrong + right)
    reverse = quality_of(ranked("any", -1.0 * is_wrong), is_wrong).auroc
    assert (reverse.value, reverse.low, reverse.high) == (0, 0, pytest.approx(1 - perfect.auroc.low))


def test_scores_that_are_all_equal_have_an_interval_too():
    found = quality_of(ranked("any", np.zeros(20)), np.arange(20) < 10).auroc
    assert found.value == 0.5
    assert found.low < 0.3
    assert found.high > 0.7
