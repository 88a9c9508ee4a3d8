"""Claims, and their judgement on a study's table of runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.claims.coverage import BROKEN, Coverage, not_by_study
from analysis.claims.effect import NOT_MEASURED, Effect, combined_verdict, corrected
from analysis.claims.equal_loss import with_equal_loss
from analysis.claims.prediction import Prediction, not_measured
from analysis.claims.quantities import QUANTITIES, quantity, studies_without
from analysis.claims.variants import AmbiguousError
from analysis.claims.wording import conclusion
from analysis.plan.errors import check_known
from analysis.plan.own_parts import read_own_part
from analysis.statistics import Part, Test
from analysis.store import OWN_COLUMNS
from landscape.results.files import replaced
from ncsam.options import nearest

NAMING_FIELDS = ("quantity", "outcome", "given", "vacuous")
"""Fields of predictions that name a quantity."""


@dataclass(frozen=True)
class Claim:
    """A statement that data can contradict.

    Attributes:
        id: id in the project's list of claims. Its letters name the family over which Holm's correction is made.
        statement: the claim in one sentence.
        place: the place in the paper, or another source.
        predictions: predictions about measured quantities; all of them enter the verdict.
        controls: effects that help to explain the verdict but do not enter it.
        changed: what was changed in the claim after results had been seen; empty if it stands as it was written.
    """

    id: str
    statement: str
    place: str
    predictions: Sequence[Prediction]
    controls: Sequence[Prediction] = ()
    changed: str = ""

    @property
    def family(self) -> str:
        """The letters of the id. Claims with the same letters are corrected together."""
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
        """The number of predictions behind the verdict, as in "1 of 4 measured"; empty if all were measured."""
        count = sum(effect.verdict != NOT_MEASURED for effect in self.effects)
        return f"{count} of {len(self.effects)} measured" if 0 < count < len(self.effects) else ""

    @property
    def conclusions(self) -> list[str]:
        """For each prediction, what its verdict rests on, or what a verdict would need."""
        return [conclusion(effect) for effect in self.effects]

    @property
    def missing(self) -> list[str]:
        """Runs of the grid that are missing or were lost, over all predictions."""
        return list(dict.fromkeys(text for effect in self.effects for text in effect.missing))


CLAIMS: dict[str, Claim] = {}
"""Id -> claim, of all claims that are judged."""
BUILT_IN: dict[str, Claim] = {}
"""Those of them that are of this package. All others are the user's."""


def register(claim: Claim) -> Claim:
    """Adds a claim to those that `judge` tests.

    Raises:
        ValueError: the id is taken, in upper or lower case; it is of a built-in family; or the claim predicts nothing.
    """
    taken = {known.lower(): found for known, found in CLAIMS.items()}.get(claim.id.lower())
    if taken:
        kind = "the built-in claim" if taken.id in BUILT_IN else "the claim"
        raise ValueError(
            f"id: {claim.id!r} is that of {kind} {taken.id} ({taken.statement}); choose another, such as X1"
        )
    if claim.family.upper() in {known.family for known in BUILT_IN.values()}:
        raise ValueError(
            f"id: {claim.id!r} begins like the built-in claims {claim.family.upper()}, whose p-values are corrected "
            "together, and would change their verdicts; begin with another letter, such as X"
        )
    if not claim.predictions:
        raise ValueError(f"predictions: claim {claim.id!r} has none, so that no data could contradict it")
    CLAIMS[claim.id] = claim
    return claim


def read_claims(path: Path) -> None:
    """Runs a Python file of the user that registers further claims.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not Python, or fails.
    """
    read_own_part(path)


def claim_named(name: str, field: str) -> Claim:
    """The registered claim of an id in upper or lower case.

    Raises:
        ValueError: the id is not registered. The message begins with `field` and names the nearest id.
    """
    found = {known.lower(): known for known in CLAIMS}.get(name.lower(), name)
    check_known(found, CLAIMS, field)
    return CLAIMS[found]


def chosen_claims(ids: Sequence[str] | None, *, skip_unknown: bool = False) -> list[Claim]:
    """The claims of these ids, in upper or lower case: first the user's, then the others.

    Args:
        ids: the ids in a study; None for all registered claims.
        skip_unknown: whether claims that are not registered are left out, such as those of a file that is not loaded.

    Raises:
        ValueError: an id is not registered; the message names the nearest id.
    """
    known = {name.lower() for name in CLAIMS}
    asked = CLAIMS if ids is None else ids
    chosen = {claim_named(name, "claims").id for name in asked if name.lower() in known or not skip_unknown}
    # a user who wrote a claim looks for it first
    in_order = sorted(CLAIMS.values(), key=lambda claim: claim.id in BUILT_IN)
    return [claim for claim in in_order if claim.id in chosen]


def judge(table: pd.DataFrame, claims: Iterable[Claim] | None = None) -> list[Judgement]:
    """Judges claims; if none are given, all registered ones. The order of rows and files does not matter.

    The predictions of a family share an error rate of 5% (Holm). Controls are corrected separately.

    Raises:
        ValueError: a claim names something that is neither a quantity nor a column of the table.
    """
    table = table.sort_values(["dataset", "noise_kind", "noise_rate", "method", "seed"], ignore_index=True)
    table = with_equal_loss(table)
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
            if not (isinstance(name, str) and name):
                continue
            names = f"{field}: claim {claim.id!r} names {name!r}"
            if name in BROKEN:
                raise ValueError(
                    f"{names}: runs that diverged or failed are left out of all comparisons, so that it would always "
                    "be 0; the answer of any other quantity counts them"
                )
            if name not in known and name in OWN_COLUMNS:
                raise ValueError(
                    f"{names}, of the measure {OWN_COLUMNS[name]!r}, which no run of this study has; run the study "
                    "with --with and the file that registers the measure, into another --out"
                )
            if name not in known:
                hint = nearest(name, known) or "take a column of runs.csv or a name of QUANTITIES"
                raise ValueError(f"{names}, which is no quantity and no column; {hint}")
            for column in quantity(name).columns:
                _check_column(names if column == name else f"{names}, of column {column!r}", column, table)


def _check_column(names: str, column: str, table: pd.DataFrame) -> None:
    """Refuses a column of text."""
    try:
        table.get(column, pd.Series(dtype=np.float64)).astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{names}, which holds text; take a column of numbers") from None


def _judged(table: pd.DataFrame, asked: list[tuple[Claim, Sequence[Prediction]]]) -> list[list[Effect]]:
    """The effects of each claim's predictions, corrected over its family."""
    found = [[_effect(prediction, table) for prediction in predictions] for _, predictions in asked]
    families: dict[str, list[tuple[int, int]]] = {}
    for row, (claim, predictions) in enumerate(asked):
        places = families.setdefault(claim.family, [])
        places += [(row, place) for place in range(len(predictions))]
    for places in families.values():
        effects = corrected([found[row][place] for row, place in places])
        for (row, place), effect in zip(places, effects, strict=True):
            found[row][place] = effect
    return found


def _effect(prediction: Prediction, table: pd.DataFrame) -> Effect:
    """The effect in the studies that measured the prediction's quantities. The others are named as missing."""
    named = [getattr(prediction, field, None) for field in NAMING_FIELDS if field != "vacuous"]
    quantities = [quantity(name) for name in named if isinstance(name, str) and name]
    without = {study for what in quantities for study in studies_without(table, what)}
    # the table has hundreds of columns, so that its numbers are copied only where runs are left out
    of_these = table["study"].isin(without) if without else None
    try:
        found = prediction.effect(table.copy(deep=False) if of_these is None else table[~of_these])
    except AmbiguousError as error:
        return not_measured(prediction, "", str(error))
    if of_these is None or found.needs:
        return found
    return replace(found, coverage=found.coverage + Coverage(not_by_study(table[of_these])))


def write_json(judgements: list[Judgement], path: Path) -> None:
    """Writes verdicts with all their numbers. NaN and infinity become null."""
    content = [
        {
            "id": judgement.claim.id,
            "statement": judgement.claim.statement,
            "place": judgement.claim.place,
            "changed": judgement.claim.changed,
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
    """All numbers of an effect, about these cells and about data like these."""
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
        "low": _without_nan(effect.low),
        "high": _without_nan(effect.high),
        "note": effect.note,
        "these_cells": _numbers(finding.these),
        "data_like_these": _numbers(finding.like_these),
        "data_sets": finding.data_sets,
        "places": finding.places,
        "place": finding.place,
        "reversal_p": _without_nan(finding.reversal_p),
        "parts": [_numbers(part) for part in finding.parts],
        "single": list(finding.single),
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
