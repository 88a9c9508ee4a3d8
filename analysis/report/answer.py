"""The result of a study in three sentences: accuracy, the effect of noise on curvature, the claims.

What the numbers seem to say is not told as a fact: where a claim tests it, the sentence follows the claim's verdict.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.claims import Difference, Judgement, Trend
from analysis.claims.broken_runs import broke
from analysis.claims.effect import (
    CONTRADICTED,
    CONTRADICTED_HERE,
    EQUIVALENT,
    EQUIVALENT_HERE,
    MIXED,
    NOT_MEASURED,
    SUPPORTED,
    SUPPORTED_HERE,
    VERDICTS,
    Effect,
)
from analysis.claims.prediction import Prediction
from analysis.claims.quantities import quantity
from analysis.claims.variants import select
from analysis.claims.wording import deciding_p
from analysis.report.numbers import interval
from landscape.results.wording import counted, percent

ACCURACY, EIGENVALUE = "test_accuracy", "top_eigenvalue_observed"
GROWTH = {
    SUPPORTED: "grows with the share of wrong labels",
    SUPPORTED_HERE: "grows with the share of wrong labels in these cells",
    CONTRADICTED: "falls with the share of wrong labels",
    CONTRADICTED_HERE: "falls with the share of wrong labels in these cells",
    EQUIVALENT: "changes with the share of wrong labels by less than the margin",
    EQUIVALENT_HERE: "changes with the share of wrong labels by less than the margin in these cells",
    MIXED: "grows with the share of wrong labels in some data and falls in others",
}
"""Verdict on the prediction that the eigenvalue grows -> what is said of it. Any other verdict leaves it open."""


def answer(table: pd.DataFrame, judgements: list[Judgement]) -> list[str]:
    """Three sentences from the table of runs and the verdicts. If a number is missing, its sentence says so.

    Means have the standard deviation over runs and the number of runs. They are those of the first data set and kind of
    noise, which are named if there are several.
    """
    several = [name for name in ("dataset", "noise_kind") if table[name].nunique() > 1]
    first = table.iloc[0]
    runs = table[(table[several] == first[several]).all(axis=1)] if several else table
    where = f" ({', '.join(str(first[name]) for name in several)})" if several else ""
    return [_accuracy(runs, where, judgements), _curvature(runs, where, judgements), _claims(judgements)]


def _accuracy(runs: pd.DataFrame, where: str, judgements: list[Judgement]) -> str:
    rate = runs["noise_rate"].max()
    of_rate = runs[(runs["noise_rate"] == rate) & ~broke(runs)]
    at = f"At {percent(rate)} wrong labels{where}"
    accuracy = {
        str(name): 100 * found.dropna() for name, found in of_rate.groupby("method", sort=False)[ACCURACY]
    }
    means = pd.Series({name: found.mean() for name, found in accuracy.items() if len(found)}, dtype=float)
    if means.empty:
        return f"{at} no method has an accuracy."
    best, last = str(means.idxmax()), str(means.idxmin())
    most = f"{best} has {{}} accuracy, {_mean(accuracy[best], '.1f', '%')}"
    if best == last:
        return f"{at} {most.format('a mean')}."
    least = f"{last} the lowest, {_mean(accuracy[last], '.1f', '%')}"
    tested = "; ".join(
        _tested(label, effect) for label, _, effect in _tests(judgements, ACCURACY, Difference)
    )
    return f"{at} {most.format('the highest mean')}, and {least}. " + (
        f"Tested over all noise rates above 0: {tested}." if tested else "No claim tests the difference."
    )


def _curvature(runs: pd.DataFrame, where: str, judgements: list[Judgement]) -> str:
    name, tested = str(runs["method"].iloc[0]), ""
    of_method = runs[runs["method"] == name]
    for label, prediction, effect in _tests(judgements, EIGENVALUE, Trend):
        if isinstance(prediction, Trend) and _is_growth_with_noise(prediction) and not tested:
            name, of_method = prediction.method.title, select(runs, prediction.method)
            said = GROWTH.get(effect.verdict, "may grow or fall with the share of wrong labels: this is open")
            tested = f" {said} ({_tested(label, effect)})"
    values = quantity(EIGENVALUE)
    counts = ~broke(of_method) & ~values.unconverged(of_method)
    rates = sorted(of_method["noise_rate"].unique())
    at_rates = [
        f"{_mean(of_method.loc[counts & (of_method['noise_rate'] == rate), EIGENVALUE], '.3g')} at {percent(rate)}"
        for rate in dict.fromkeys((rates[0], rates[-1]))
    ]
    left_out = int((~counts).sum())
    out = f"; {left_out} of {counted(len(counts), 'runs')} diverged or did not converge" if left_out else ""
    numbers = f"{' and '.join(at_rates)} wrong labels{where}{out}"
    whose = f"The top eigenvalue of the cross-entropy around {name}"
    if tested:
        return f"{whose}{tested}: {numbers}."
    return f"{whose} is {numbers}." + (" No claim tests the difference." if len(rates) > 1 else "")


def _is_growth_with_noise(prediction: Trend) -> bool:
    """Whether the prediction is what the words of `GROWTH` are about."""
    return prediction.sign == 1 and prediction.against == "noise_rate"


def _tests(
    judgements: list[Judgement], name: str, kind: type[Difference | Trend]
) -> Iterator[tuple[str, Prediction, Effect]]:
    """The label, prediction and effect of each measured prediction of that kind about a quantity."""
    for judgement in judgements:
        pairs = zip(judgement.claim.predictions, judgement.effects, strict=True)
        for number, (prediction, effect) in enumerate(pairs, 1):
            is_asked = isinstance(prediction, kind) and prediction.quantity == name
            if is_asked and effect.verdict != NOT_MEASURED:
                yield f"{judgement.claim.id}.{number}", prediction, effect


def _tested(label: str, effect: Effect) -> str:
    """The verdict on a prediction with its numbers."""
    size = f"{interval(effect)} {effect.unit}".rstrip()
    return (
        f"{label}, {effect.name}: {effect.verdict}, {size}, {deciding_p(effect)}, "
        f"{counted(effect.samples, effect.counted)}"
    )


def _mean(values: pd.Series, digits: str, unit: str = "") -> str:
    """Mean, standard deviation and number of some runs; runs without a number do not count."""
    values = values.dropna()
    if values.empty:
        return "not measured"
    mean = f"{values.mean():{digits}}{unit}"
    if len(values) == 1:
        return f"{mean} (n = 1)"
    return f"{mean} ± {values.std():{'.2g' if 'g' in digits else digits}}{unit} (s.d., n = {len(values)})"


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
