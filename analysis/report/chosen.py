"""The claims that are judged on the results of studies: those that the studies chose, or all. And their judgements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.claims import Claim, Judgement, chosen_claims, judge
from analysis.plan import read_study
from analysis.plan.own_parts import are_loaded
from analysis.store import read_tables, unfinished, with_failed


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


def runs_of(roots: Sequence[Path]) -> pd.DataFrame:
    """The table of all runs of these studies, those that failed among them."""
    return with_failed(read_tables(roots), [unfinished(root) for root in roots])


def judge_studies(roots: Sequence[Path]) -> list[Judgement]:
    """The judgements of all claims of these studies, on all their runs together."""
    return judge(runs_of(roots), claims_of(roots))


def judgements_of(judgements: Sequence[Judgement], ids: Sequence[str]) -> list[Judgement]:
    """The judgements of the claims with these ids, in their order.

    They are chosen after the whole family was judged: Holm's correction is over all predictions that were measured,
    whichever are looked at.

    Raises:
        ValueError: a claim was not judged.
    """
    judged = {judgement.claim.id: judgement for judgement in judgements}
    for name in ids:
        if name not in judged:
            raise ValueError(f"--claim: {name!r} is none of the claims that the study chose")
    return [judged[name] for name in ids]
