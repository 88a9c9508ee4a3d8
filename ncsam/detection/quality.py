"""How well a ranking finds the wrong labels, where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ncsam.detection.ranking import Ranking

Booleans = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A number and its 95% interval: what other samples from the same source would change."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DetectionQuality:
    """How well a criterion finds wrong labels.

    Attributes:
        criterion: its name.
        auroc: chance that a wrong label has the larger score than a right one, equal ones counted half.
        average_precision: mean of the precision over the places of the wrong labels; the noise rate for a random order.
        precision_at_rate: share of wrong labels among as many of the most suspicious as there are wrong ones; where
            the cut falls into equal scores, the mean over their orders.
        wrong: wrong labels among the samples with a score.
        samples: with a score.
        unscored: samples without one, left out.
    """

    criterion: str
    auroc: Interval
    average_precision: Interval
    precision_at_rate: Interval
    wrong: int
    samples: int
    unscored: int


def quality_of(
    ranking: Ranking, is_wrong: ArrayLike | Tensor, *, resamples: int = 500, seed: int = 0
) -> DetectionQuality:
    """Compares a ranking with the truth.

    The interval of the AUROC is that of DeLong et al. 1988, on the scale of its logit. The others are percentiles of
    the bootstrap over the wrong and over the right labels. An order without a fault has an interval of no width.

    Args:
        ranking: of n samples.
        is_wrong: bool (n,).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: another number of samples, or fewer than two right or two wrong labels among those with a score.
        ImportError: scikit-learn is missing.
    """
    wrong = np.asarray(is_wrong.cpu() if isinstance(is_wrong, Tensor) else is_wrong, dtype=bool)
    if wrong.shape != ranking.scores.shape:
        raise ValueError(f"is_wrong: must be {ranking.scores.shape}, one a sample, got {wrong.shape}")
    is_scored = ~np.isnan(ranking.scores)
    # ranks have the order of the scores, and no infinite ones
    scores, wrong = -ranking.ranks[is_scored].astype(np.float64), wrong[is_scored]
    if min(wrong.sum(), (~wrong).sum()) < 2:
        raise ValueError(
            f"is_wrong: {int(wrong.sum())} of {len(wrong)} labels with a score are wrong; a comparison needs two of "
            "each kind"
        )
    average, precision = _bootstrapped(scores, wrong, resamples, seed)
    return DetectionQuality(
        criterion=ranking.criterion,
        auroc=_auroc(scores, wrong),
        average_precision=average,
        precision_at_rate=precision,
        wrong=int(wrong.sum()),
        samples=len(wrong),
        unscored=int((~is_scored).sum()),
    )


def _auroc(scores: Floats, wrong: Booleans) -> Interval:
    """DeLong's variance from midranks: those among all samples less those among samples of the same kind."""
    from scipy.stats import norm, rankdata

    among_all = rankdata(scores)
    count, others = int(wrong.sum()), int((~wrong).sum())
    of_wrong = (among_all[wrong] - rankdata(scores[wrong])) / others
    of_right = 1 - (among_all[~wrong] - rankdata(scores[~wrong])) / count
    area = float(of_wrong.mean())
    variance = sum(part.var(ddof=1) / len(part) for part in (of_wrong, of_right))
    if not 0 < area < 1:
        return Interval(area, area, area)
    logit = np.log(area / (1 - area))
    margin = norm.ppf(0.975) * np.sqrt(variance) / (area * (1 - area))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (logit - margin, logit + margin))
    return Interval(area, low, high)


def _bootstrapped(scores: Floats, wrong: Booleans, resamples: int, seed: int) -> tuple[Interval, Interval]:
    """Average precision and precision at the noise rate."""
    from scipy.stats import bootstrap

    try:
        from sklearn.metrics import average_precision_score
    except ImportError as error:
        raise ImportError("quality_of: needs scikit-learn: pip install 'ncsam[detect]'") from error

    def statistics(of_wrong: Floats, of_right: Floats) -> tuple[float, float]:
        both = np.concatenate([of_wrong, of_right])
        is_wrong = np.arange(len(both)) < len(of_wrong)
        return float(average_precision_score(is_wrong, both)), precision_at_rate(both, is_wrong)

    parts = scores[wrong], scores[~wrong]
    drawn = bootstrap(
        parts,
        statistics,
        vectorized=False,
        method="percentile",
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    average, precision = (
        Interval(value, float(low), float(high))
        for value, low, high in zip(statistics(*parts), drawn.low, drawn.high, strict=True)
    )
    return average, precision


def precision_at_rate(scores: Floats, wrong: Booleans) -> float:
    """The share of wrong labels among the `wrong.sum()` largest scores, averaged over the orders of equal scores."""
    count = int(wrong.sum())
    least = np.sort(scores)[-count]
    is_above, is_equal = scores > least, scores == least
    from_equal = (count - is_above.sum()) * wrong[is_equal].mean()
    return float((wrong[is_above].sum() + from_equal) / count)
