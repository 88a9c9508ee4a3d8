"""A claim, and its judgement on a study's table of runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.claims.effect import NOT_MEASURED, Effect, combined_verdict, corrected
from analysis.claims.prediction import Prediction, not_measured
from analysis.claims.quantities import QUANTITIES
from analysis.claims.variants import AmbiguousError
from analysis.claims.wording import conclusion
from analysis.plan.errors import one_of
from analysis.plan.own_parts import read_own_part
from analysis.statistics import Part, Test
from landscape.results.files import replaced
from ncsam.options import nearest

NAMING_FIELDS = ("quantity", "outcome", "given", "vacuous")
"""Fields of predictions that name a quantity."""


@dataclass(frozen=True)
class Claim:
    """A statement that data can contradict.

    Attributes:
        id: as in the project's list of claims; its letters name the family over which Holm's correction is made.
        statement: what is claimed, in one sentence.
        place: where.
        predictions: what it means for measured quantities; all of them decide.
        controls: effects that explain it but do not enter the verdict.
    """

    id: str
    statement: str
    place: str
    predictions: Sequence[Prediction]
    controls: Sequence[Prediction] = ()

    @property
    def family(self) -> str:
        """The claims that are corrected together."""
        return self.id.rstrip("0123456789")


@dataclass(frozen=True)
class Judgement:
    """A claim with its effects and verdict."""

    claim: Claim
    verdict: str
    effects: list[Effect]
    controls: list[Effect]

    @property
    def measured(self) -> str:
        """How many predictions the verdict rests on, as in "1 of 4 measured"; empty if on all."""
        count = sum(effect.verdict != NOT_MEASURED for effect in self.effects)
        return f"{count} of {len(self.effects)} measured" if 0 < count < len(self.effects) else ""

    @property
    def conclusions(self) -> list[str]:
        """What each prediction's verdict rests on, or what would be needed for one."""
        return [conclusion(effect) for effect in self.effects]

    @property
    def missing(self) -> list[str]:
        """Runs of the grid that are not there or were lost, over all predictions."""
        return list(dict.fromkeys(text for effect in self.effects for text in effect.missing))


CLAIMS: dict[str, Claim] = {}
"""Id -> claim, of all that are judged."""


def register(claim: Claim) -> Claim:
    """Adds a claim to those that `judge` tests.

    Raises:
        ValueError: the id is taken, or the claim predicts nothing.
    """
    if claim.id in CLAIMS:
        raise ValueError(f"id: claim {claim.id!r} is registered already")
    if not claim.predictions:
        raise ValueError(f"predictions: claim {claim.id!r} has none, so that no data could contradict it")
    CLAIMS[claim.id] = claim
    return claim


def read_claims(path: Path) -> None:
    """Runs a Python file of the user's, which registers further claims.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not Python, or fails.
    """
    read_own_part(path)


def chosen_claims(ids: Sequence[str] | None, *, skip_unknown: bool = False) -> list[Claim]:
    """The claims of these ids, however they are capitalized; all that are registered for None.

    Args:
        ids: as a study names them.
        skip_unknown: leaves out what is not registered, such as a claim of a file that is not loaded.

    Raises:
        ValueError: an id that is not registered; the message names the nearest.
    """
    if ids is None:
        return list(CLAIMS.values())
    registered = {known.lower(): known for known in CLAIMS}
    names = [registered.get(name.lower(), name) for name in ids]
    try:
        return [CLAIMS[one_of(name, CLAIMS)] for name in names if name in CLAIMS or not skip_unknown]
    except ValueError as error:
        raise ValueError(f"claims: {error}") from error


def judge(table: pd.DataFrame, claims: Iterable[Claim] | None = None) -> list[Judgement]:
    """Tests claims, all that are registered if not given; neither the order of rows nor that of files matters.

    The predictions of a family share an error rate of 5% (Holm); controls are corrected apart from them.

    Raises:
        ValueError: a claim names what is no quantity and no column of the table.
    """
    table = table.sort_values(["dataset", "noise_kind", "noise_rate", "method", "seed"], ignore_index=True)
    chosen = list(CLAIMS.values() if claims is None else claims)
    for claim in chosen:
        _check_quantities(claim, table)
    deciding = _judged(table, [(claim, claim.predictions) for claim in chosen])
    controls = _judged(table, [(claim, claim.controls) for claim in chosen])
    return [
        Judgement(claim, combined_verdict([effect.verdict for effect in effects]), effects, others)
        for claim, effects, others in zip(chosen, deciding, controls, strict=True)
    ]


def _check_quantities(claim: Claim, table: pd.DataFrame) -> None:
    known = [*QUANTITIES, *map(str, table.columns)]
    for prediction in (*claim.predictions, *claim.controls):
        for field in NAMING_FIELDS:
            name = getattr(prediction, field, None)
            if isinstance(name, str) and name and name not in known:
                hint = nearest(name, known) or "take a column of runs.csv or a name of QUANTITIES"
                raise ValueError(
                    f"{field}: claim {claim.id!r} names {name!r}, which is no quantity and no column; {hint}"
                )


def _judged(table: pd.DataFrame, asked: list[tuple[Claim, Sequence[Prediction]]]) -> list[list[Effect]]:
    """The effects of each claim's predictions, corrected over its family."""
    found = [[_effect(prediction, table) for prediction in predictions] for _, predictions in asked]
    families = list(dict.fromkeys(claim.family for claim, _ in asked))
    by_family = {
        family: iter(
            corrected([e for (c, _), es in zip(asked, found, strict=True) for e in es if c.family == family])
        )
        for family in families
    }
    return [
        [next(by_family[claim.family]) for _ in effects]
        for (claim, _), effects in zip(asked, found, strict=True)
    ]


def _effect(prediction: Prediction, table: pd.DataFrame) -> Effect:
    try:
        return prediction.effect(table)
    except AmbiguousError as error:
        return not_measured(prediction, "", str(error))


def write_json(judgements: list[Judgement], path: Path) -> None:
    """Writes verdicts with all their numbers; NaN and infinity become null."""
    content = [
        {
            "id": judgement.claim.id,
            "statement": judgement.claim.statement,
            "place": judgement.claim.place,
            "verdict": judgement.verdict,
            "measured": judgement.measured,
            "missing": judgement.missing,
            "effects": [_plain(effect) for effect in judgement.effects],
            "controls": [_plain(effect) for effect in judgement.controls],
        }
        for judgement in judgements
    ]
    with replaced(path, through_link=False) as beside:
        beside.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _plain(effect: Effect) -> dict[str, object]:
    """All numbers of an effect, both of what it says of these cells and of cells like these."""
    finding = effect.finding
    return {
        "name": effect.name,
        "predicted": effect.predicted,
        "unit": effect.unit,
        "margin": _without_nan(effect.margin),
        "null": list(effect.null),
        "verdict": effect.verdict,
        "conclusion": conclusion(effect),
        "deciding_p": _without_nan(effect.deciding_p),
        "deciding_test": effect.deciding_test,
        "tests": effect.tests,
        "estimand": effect.estimand,
        "samples": effect.samples,
        **_numbers(effect.test),
        "these_cells": _numbers(finding.these),
        "cells_like_these": _numbers(finding.like_these),
        "places": finding.places,
        "place": finding.place,
        "reversal_p": _without_nan(finding.reversal_p),
        "parts": [_numbers(part) for part in finding.parts],
        "lost": effect.lost,
        "missing": list(effect.missing),
        "runs": effect.coverage.runs,
        "not_converged": effect.coverage.not_converged,
        "vacuous": effect.vacuous,
        "needs": effect.needs,
    }


def _numbers(found: Test | Part) -> dict[str, object]:
    return {key: _without_nan(value) for key, value in asdict(found).items()}


def _without_nan(value: object) -> object:
    return None if isinstance(value, float) and not np.isfinite(value) else value
