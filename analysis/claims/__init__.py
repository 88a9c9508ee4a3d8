"""The paper's claims (arXiv:2601.19947) and its rivals, as predictions that a study's table of runs can contradict.

`claim.py` says what a claim is and judges it, `comparisons.py` the kinds of predictions, `variants.py` which runs
are a method's, `quantities.py` what is measured; one file a family holds the claims.
"""

from analysis.claims import ablations, generalisation, landscapes, mechanism, rivals, theory
from analysis.claims.claim import CLAIMS, Claim, Judgement, judge, read_claims, register, write_json
from analysis.claims.comparisons import Association, Best, Difference, Information, Level, Trend
from analysis.claims.quantities import QUANTITIES, Quantity
from analysis.claims.variants import (
    CONSTANT_SCHEDULE,
    LARGER_SAM,
    NCSAM,
    NOT_PROJECTED,
    OPPOSITE_SIGN,
    ORACLE,
    RANDOM_DIRECTION,
    RANDOM_FLIPS,
    SAM,
    SAM_AS_LONG,
    SAM_AS_LONG_AS_NOT_PROJECTED,
    SGD,
    UNCOMPENSATED,
    Variant,
)

for _claim in (
    *theory.CLAIMS,
    *mechanism.CLAIMS,
    *landscapes.CLAIMS,
    *generalisation.CLAIMS,
    *ablations.CLAIMS,
    *rivals.CLAIMS,
):
    register(_claim)

__all__ = [
    "CLAIMS",
    "CONSTANT_SCHEDULE",
    "LARGER_SAM",
    "NCSAM",
    "NOT_PROJECTED",
    "OPPOSITE_SIGN",
    "ORACLE",
    "QUANTITIES",
    "RANDOM_DIRECTION",
    "RANDOM_FLIPS",
    "SAM",
    "SAM_AS_LONG",
    "SAM_AS_LONG_AS_NOT_PROJECTED",
    "SGD",
    "UNCOMPENSATED",
    "Association",
    "Best",
    "Claim",
    "Difference",
    "Information",
    "Judgement",
    "Level",
    "Quantity",
    "Trend",
    "Variant",
    "judge",
    "read_claims",
    "register",
    "write_json",
]
