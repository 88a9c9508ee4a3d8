"""Statistics from arrays: estimates with intervals and tests, for the cells at hand and for data like these.

Only `analysis.claims.effect` judges whether an estimate has the predicted sign, and gives verdicts.
"""

from analysis.statistics.association import rank_association
from analysis.statistics.best import best_among
from analysis.statistics.family import holm
from analysis.statistics.finding import (
    FEWEST_DATA_SETS,
    LIKE_THESE,
    THESE,
    Finding,
    Part,
    Test,
    nothing_found,
)
from analysis.statistics.information import conditional_information
from analysis.statistics.paired import paired_effect
from analysis.statistics.power import (
    POWER,
    detectable_effect,
    draws_needed,
    units_for_equivalence,
    units_needed,
)
from analysis.statistics.shares import failing_share
from analysis.statistics.trends import slope_of, trend

__all__ = [
    "FEWEST_DATA_SETS",
    "LIKE_THESE",
    "POWER",
    "THESE",
    "Finding",
    "Part",
    "Test",
    "best_among",
    "conditional_information",
    "detectable_effect",
    "draws_needed",
    "failing_share",
    "holm",
    "nothing_found",
    "paired_effect",
    "rank_association",
    "slope_of",
    "trend",
    "units_for_equivalence",
    "units_needed",
]
