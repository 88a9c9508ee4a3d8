"""The paper's claims (arXiv:2601.19947) and its rivals, as predictions that a study's table of runs can contradict.

`claim.py` defines a claim and judges claims. `prediction.py`, `differences.py`, `trends.py`, `best.py`,
`associations.py` and `shares.py` hold the kinds of predictions. `effect.py` holds the rules of verdicts, `coverage.py`
finds missing runs, `variants.py` finds the runs of a method, and `quantities.py` defines what is measured. The other
files hold the claims, one file for each family.
"""

from analysis.claims import (
    ablations,
    alarm,
    explanations,
    generalization,
    label_mean,
    landscapes,
    mechanism,
    redraw,
    regularizers,
    rivals,
    simulated_noise,
    theory,
    width,
    wrong_perturbations,
)
from analysis.claims.associations import Association, Information
from analysis.claims.best import Best
from analysis.claims.claim import (
    BUILT_IN,
    CLAIMS,
    Claim,
    Judgement,
    chosen_claims,
    claim_named,
    judge,
    read_claims,
    register,
    write_json,
)
from analysis.claims.differences import Difference, Level
from analysis.claims.effect import VERDICTS, Effect
from analysis.claims.quantities import QUANTITIES, Quantity, check_own_columns, register_quantity
from analysis.claims.shares import Holds
from analysis.claims.trends import Trend
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
    SLN,
    UNCOMPENSATED,
    Variant,
)

_CLAIMS = [
    *theory.CLAIMS,
    *mechanism.CLAIMS,
    *landscapes.CLAIMS,
    *generalization.CLAIMS,
    *ablations.CLAIMS,
    *rivals.CLAIMS,
    *explanations.CLAIMS,
    *width.CLAIMS,
    *regularizers.CLAIMS,
    *alarm.CLAIMS,
    *redraw.CLAIMS,
    *simulated_noise.CLAIMS,
    *label_mean.CLAIMS,
    *wrong_perturbations.CLAIMS,
]
_FAMILIES = list(dict.fromkeys(claim.family for claim in _CLAIMS))
for _claim in sorted(_CLAIMS, key=lambda claim: (_FAMILIES.index(claim.family), len(claim.id), claim.id)):
    register(_claim)
BUILT_IN.update(CLAIMS)

__all__ = [
    "BUILT_IN",
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
    "SLN",
    "UNCOMPENSATED",
    "VERDICTS",
    "Association",
    "Best",
    "Claim",
    "Difference",
    "Effect",
    "Holds",
    "Information",
    "Judgement",
    "Level",
    "Quantity",
    "Trend",
    "Variant",
    "check_own_columns",
    "chosen_claims",
    "claim_named",
    "judge",
    "read_claims",
    "register",
    "register_quantity",
    "write_json",
]
