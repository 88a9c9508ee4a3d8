"""The result of a study in three sentences: the most accurate method, the effect of noise on curvature, the claims."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.claims import Judgement
from analysis.claims.effect import NOT_MEASURED, VERDICTS
from landscape.results.wording import percent


def answer(table: pd.DataFrame, judgements: list[Judgement]) -> list[str]:
    """Three sentences from the table of runs and the verdicts. If a number is missing, its sentence says so."""
    return [_accuracy(table), _curvature(table), _claims(judgements)]


def _accuracy(table: pd.DataFrame) -> str:
    rate = table["noise_rate"].max()
    accuracy = _means(table[table["noise_rate"] == rate], "test_accuracy")
    if accuracy.isna().all():
        return f"At {percent(rate)} wrong labels no method has an accuracy."
    best, last = accuracy.idxmax(), accuracy.idxmin()
    most, least = f"{100 * accuracy.max():.1f}%", f"{100 * accuracy.min():.1f}%"
    if best == last:
        return f"At {percent(rate)} wrong labels {best} reaches an accuracy of {most}."
    return (
        f"At {percent(rate)} wrong labels {best} is the most accurate, with {most}, and {last} the least, with "
        f"{least}."
    )


def _curvature(table: pd.DataFrame) -> str:
    method = table["method"].iloc[0]
    rates = sorted(table["noise_rate"].unique())
    of_method = table[table["method"] == method]
    first, last = (
        of_method.loc[of_method["noise_rate"] == rate, "top_eigenvalue_observed"].mean()
        for rate in (rates[0], rates[-1])
    )
    if not np.isfinite([first, last]).all():
        return f"The top eigenvalue of {method} was not measured at every noise rate."
    if len(rates) == 1:
        return f"The top eigenvalue of the loss around {method} is {first:.3g}."
    word = "grows" if last > first else "falls"
    return (
        f"From {percent(rates[0])} to {percent(rates[-1])} wrong labels the top eigenvalue of the loss around {method} "
        f"{word} from {first:.3g} to {last:.3g}."
    )


def _claims(judgements: list[Judgement]) -> str:
    by_verdict: dict[str, list[str]] = {}
    for judgement in judgements:
        by_verdict.setdefault(judgement.verdict, []).append(judgement.claim.id)
    unmeasured = len(by_verdict.pop(NOT_MEASURED, []))
    parts = [
        f"{len(by_verdict[verdict])} {verdict} ({', '.join(by_verdict[verdict])})"
        for verdict in VERDICTS
        if verdict in by_verdict
    ]
    count = len(judgements) - unmeasured
    if not count:
        return f"None of the {unmeasured} claims was measured."
    of_others = f"; {unmeasured} others were not measured" if unmeasured else ""
    return f"Of {count} judged claim{'s' if count > 1 else ''}: {', '.join(parts)}{of_others}."


def _means(runs: pd.DataFrame, column: str) -> pd.Series:
    if column not in runs:
        return pd.Series(dtype=np.float64)
    return runs.groupby("method", sort=False)[column].mean()
