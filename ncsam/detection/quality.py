"""How well a ranking finds the wrong labels, where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ncsam.detection.ranking import Ranking

Booleans = NDArray[np.bool_]
Floats = NDArray[np.float64]

Z = 1.959964
"""Standard errors on each side of a 95% interval."""


@dataclass(frozen=True)
class Interval:
    """A number and its 95% interval, over draws of the samples from the same source."""

    value: float
    low: float
    high: float

    def __repr__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class DetectionQuality:
    """How well a criterion finds wrong labels.

    Attributes:
        criterion: its name.
        auroc: chance that a wrong label has a larger score than a right one; equal scores count half.
        average_precision: mean of the precision over the places of the wrong labels; the noise rate for a random order.
        precision_at_rate: share of wrong labels among as many of the most suspicious as there are wrong ones; where
            the cut falls into equal scores, the mean over their orders.
        wrong: wrong labels among the samples with a score.
        samples: samples with a score.
        unscored: samples without a score, which are left out.
    """

    criterion: str
    auroc: Interval
    average_precision: Interval
    precision_at_rate: Interval
    wrong: int
    samples: int
    unscored: int

    def __repr__(self) -> str:
        unscored = f", {self.unscored} without a score" if self.unscored else ""
        return (
            f"DetectionQuality({self.criterion}: auroc {self.auroc}, average precision {self.average_precision}, "
            f"precision at rate {self.precision_at_rate}; {self.wrong} of {self.samples} wrong{unscored})"
        )


def quality_of(ranking: Ranking, is_wrong: ArrayLike | Tensor) -> DetectionQuality:
    """Compares a ranking with the truth.

    The interval of the AUROC is the smallest that spans two others. The one of DeLong et al. 1988, on the scale of the
    logit, is too narrow for few labels. The one of Newcombe 2006 (Statistics in Medicine 25:559, method 5) is too
    narrow for scores of uneven form. An order without a fault has Newcombe's alone.

    The other intervals are Wilson's, for a share of independent labels. The number of labels is that of the wrong ones,
    or of the right ones if these are fewer. In simulations with normal scores these intervals hold the truth in 95% to
    100% of the cases. A bootstrap of the average precision held the truth in 90% with 30 wrong labels among 150, and in
    47% with 5 among 25 that are told apart well. If most labels are wrong and the order is almost perfect, the interval
    of the average precision is up to four times as wide as needed.

    Args:
        ranking: of n samples.
        is_wrong: bool (n,).

    Raises:
        ValueError: another number of samples, or fewer than two right or two wrong labels among those with a score.
        ImportError: scikit-learn is missing.
    """
    try:
        from sklearn.metrics import average_precision_score
    except ImportError as error:
        raise ImportError("quality_of: needs scikit-learn: pip install 'ncsam[detect]'") from error
    wrong = np.asarray(is_wrong.cpu() if isinstance(is_wrong, Tensor) else is_wrong, dtype=bool)
    if wrong.shape != ranking.scores.shape:
        raise ValueError(f"is_wrong: must be {ranking.scores.shape}, one a sample, got {wrong.shape}")
    is_scored = ~np.isnan(ranking.scores)
    # ranks have the order of the scores, and no infinite ones
    scores, wrong = -ranking.ranks[is_scored].astype(np.float64), wrong[is_scored]
    fewest = int(min(wrong.sum(), (~wrong).sum()))
    if fewest < 2:
        raise ValueError(
            f"is_wrong: {int(wrong.sum())} of {len(wrong)} labels with a score are wrong; a comparison needs two of "
            "each kind"
        )
    return DetectionQuality(
        criterion=ranking.criterion,
        auroc=_auroc(scores, wrong),
        average_precision=_wilson(float(average_precision_score(wrong, scores)), fewest),
        precision_at_rate=_wilson(precision_at_rate(scores, wrong), fewest),
        wrong=int(wrong.sum()),
        samples=len(wrong),
        unscored=int((~is_scored).sum()),
    )


def shares_told_apart(scores: Floats, wrong: Booleans) -> tuple[Floats, Floats]:
    """How well each label is told apart from those of the other kind.

    For each wrong label this is the share of right ones with a smaller score, and for each right label the share of
    wrong ones with a larger score. Equal scores count half. The mean of either is the area under the ROC curve.
    """
    among_all = scipy.stats.rankdata(scores)
    count, others = int(wrong.sum()), int((~wrong).sum())
    # midranks among all samples less those among samples of the same kind
    of_wrong = (among_all[wrong] - scipy.stats.rankdata(scores[wrong])) / others
    of_right = 1 - (among_all[~wrong] - scipy.stats.rankdata(scores[~wrong])) / count
    return of_wrong, of_right


def _auroc(scores: Floats, wrong: Booleans) -> Interval:
    """The area, and an interval that spans DeLong's and Newcombe's."""
    of_wrong, of_right = shares_told_apart(scores, wrong)
    area, count, others = float(of_wrong.mean()), len(of_wrong), len(of_right)
    low, high = _newcombe_low(area, count, others), 1 - _newcombe_low(1 - area, count, others)
    if 0 < area < 1:
        variance = sum(part.var(ddof=1) / len(part) for part in (of_wrong, of_right))
        logit, margin = np.log(area / (1 - area)), Z * np.sqrt(variance) / (area * (1 - area))
        low = min(low, float(1 / (1 + np.exp(margin - logit))))
        high = max(high, float(1 / (1 + np.exp(-margin - logit))))
    return Interval(area, low, high)


def _newcombe_low(area: float, wrong: int, right: int) -> float:
    """The smallest area that is at most 1.96 standard errors away from the found one."""

    def excess(truth: float) -> float:
        many = (wrong + right) / 2 - 1
        shares = 1 + many * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        return float((area - truth) ** 2 - Z**2 * truth * (1 - truth) * shares / (wrong * right))

    # for an area of 1, the number 1 is another root
    return float(scipy.optimize.brentq(excess, 0, min(area, 1 - 1e-9))) if area > 0 else 0.0


def _wilson(share: float, count: int) -> Interval:
    """Wilson's interval of a share of `count` independent labels."""
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    margin = Z / (1 + Z**2 / count) * np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return Interval(share, max(0.0, float(middle - margin)), min(1.0, float(middle + margin)))


def precision_at_rate(scores: Floats, wrong: Booleans) -> float:
    """The share of wrong labels among the `wrong.sum()` largest scores, averaged over the orders of equal scores."""
    count = int(wrong.sum())
    least = np.sort(scores)[-count]
    is_above, is_equal = scores > least, scores == least
    from_equal = (count - is_above.sum()) * wrong[is_equal].mean()
    return float((wrong[is_above].sum() + from_equal) / count)
