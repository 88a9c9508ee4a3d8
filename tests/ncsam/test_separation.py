"""How well scores tell wrong labels from right ones, over all samples and at equal loss."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm

from ncsam.detection.separation import FEWEST_MATCHED, LIKE_LOSSES, auroc, auroc_at_equal_loss


@pytest.mark.parametrize("decimals", [0, 12], ids=["many ties", "no ties"])
def test_the_area_is_the_share_of_pairs_in_which_the_wrong_label_has_the_larger_score(decimals):
    rng = np.random.default_rng(0)
    is_wrong = rng.random(80) < 0.3
    scores = np.round(rng.normal(size=80) + is_wrong, decimals)
    pairs = [
        (np.sign(wrong - right) + 1) / 2
        for wrong, right in itertools.product(scores[is_wrong], scores[~is_wrong])
    ]
    assert auroc(scores, is_wrong) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize("wrong", [0, 5])
def test_without_wrong_or_without_right_labels_there_is_no_area(wrong):
    assert np.isnan(auroc(np.arange(5.0), np.arange(5) < wrong))


def by_search(scores, is_wrong, loss):
    """The definition, sample by sample."""
    found = []
    for one in np.flatnonzero(is_wrong):
        below = [other for other in np.flatnonzero(~is_wrong) if loss[other] < loss[one]]
        above = [other for other in np.flatnonzero(~is_wrong) if loss[other] >= loss[one]]
        if not below or not above:
            continue
        pair = max(below, key=lambda i: loss[i]), min(above, key=lambda i: loss[i])
        if all(abs(np.log(loss[one] / loss[other])) <= np.log(LIKE_LOSSES) for other in pair):
            found += [(np.sign(scores[one] - scores[other]) + 1) / 2 for other in pair]
    return np.mean(found)


@pytest.mark.parametrize("seed", range(3))
def test_at_equal_loss_each_wrong_label_is_compared_with_its_two_neighbors(seed):
    rng = np.random.default_rng(seed)
    is_wrong = rng.random(300) < 0.4
    loss, scores = rng.lognormal(sigma=1, size=300), np.round(rng.normal(size=300), 1)
    expected = by_search(scores, is_wrong, loss)
    assert auroc_at_equal_loss(scores, is_wrong, loss) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_a_score_that_follows_the_loss_separates_at_equal_loss_by_what_is_planted_beside(shift):
    rng = np.random.default_rng(0)
    at_equal, over_all = [], []
    for _ in range(40):
        is_wrong = rng.random(1000) < 0.4
        # the losses of wrong labels are larger by a decade
        log_loss = rng.normal(size=1000) + is_wrong
        log_score = 2 * log_loss + rng.normal(size=1000) + shift * is_wrong
        scores, loss = 10**log_score, 10**log_loss
        at_equal.append(auroc_at_equal_loss(scores, is_wrong, loss))
        over_all.append(auroc(scores, is_wrong))
    assert np.mean(at_equal) == pytest.approx(norm.cdf(shift / 2**0.5), abs=0.015)
    assert np.mean(over_all) == pytest.approx(norm.cdf((2 + shift) / 10**0.5), abs=0.015)


def test_without_right_labels_of_equal_loss_there_is_no_area():
    is_wrong = np.arange(100) < 50
    loss = np.where(is_wrong, 2.0, 1.0) * np.linspace(1, 1.01, 100)
    assert np.isnan(auroc_at_equal_loss(np.arange(100.0), is_wrong, loss))


def test_few_matched_labels_have_no_area():
    matched = FEWEST_MATCHED - 1
    loss = np.r_[np.linspace(1, 1.01, 50), np.linspace(1.001, 1.009, matched)]
    is_wrong = np.arange(50 + matched) >= 50
    assert np.isnan(auroc_at_equal_loss(loss, is_wrong, loss))
    more = np.r_[loss, 1.005]
    assert np.isfinite(auroc_at_equal_loss(more, np.r_[is_wrong, True], more))


def test_losses_of_zero_are_not_compared():
    is_wrong = np.tile([True, False], 50)
    assert np.isnan(auroc_at_equal_loss(np.arange(100.0), is_wrong, np.zeros(100)))
