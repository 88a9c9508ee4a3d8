"""Effects with intervals, tests, equivalence and verdicts, on SciPy's resampling and statsmodels' corrections."""

from analysis.statistics.association import rank_association
from analysis.statistics.effect import (
    CONTRADICTED,
    EQUIVALENT,
    INCONCLUSIVE,
    MIXED,
    NOT_MEASURED,
    SIGNIFICANCE,
    SUPPORTED,
    VERDICTS,
    Effect,
    Part,
    combined_verdict,
    not_measured,
)
from analysis.statistics.family import adjusted
from analysis.statistics.information import conditional_information
from analysis.statistics.paired import paired_effect
from analysis.statistics.power import POWER, detectable_effect, samples_needed
from analysis.statistics.trends import trend

__all__ = [
    "CONTRADICTED",
    "EQUIVALENT",
    "INCONCLUSIVE",
    "MIXED",
    "NOT_MEASURED",
    "POWER",
    "SIGNIFICANCE",
    "SUPPORTED",
    "VERDICTS",
    "Effect",
    "Part",
    "adjusted",
    "combined_verdict",
    "conditional_information",
    "detectable_effect",
    "not_measured",
    "paired_effect",
    "rank_association",
    "samples_needed",
    "trend",
]
