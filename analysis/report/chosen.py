"""The claims that are judged on the results of studies: those that the studies chose, or all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.claims import Claim, chosen_claims
from analysis.plan import read_study
from analysis.plan.own_parts import are_loaded


def claims_of(roots: Sequence[Path]) -> list[Claim]:
    """The claims that the studies of these folders name. If a study names none, all registered claims.

    Claims of a file that is not loaded are left out.

    Raises:
        ValueError: a study names an unknown claim.
    """
    studies = [read_study(root / "study.toml") for root in roots]
    if any(study.claims is None for study in studies):
        return chosen_claims(None)
    named = list(dict.fromkeys(name for study in studies for name in study.claims or ()))
    return chosen_claims(named, skip_unknown=not all(are_loaded(study.own_parts) for study in studies))
