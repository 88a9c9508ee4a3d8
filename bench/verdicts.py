"""Error rates of verdicts on planted truths: wrong verdicts, effects that are found, and intervals that hold them.

`python bench/verdicts.py` writes `docs/verdict_errors.csv`: one row for each kind of prediction, planted truth, number
of cells and seeds, and correlation of the seeds within a cell. A cell's value is normal around the planted mean, and
its seeds are normal around the cell's value; both together have a variance of 1.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf

from analysis.claims.effect import (
    CONTRADICTED,
    CONTRADICTED_HERE,
    EQUIVALENT,
    EQUIVALENT_HERE,
    MIXED,
    SUPPORTED,
    SUPPORTED_HERE,
    Effect,
)
from analysis.statistics import THESE, failing_share, paired_effect, rank_association, slope_of, trend

TABLE = Path(__file__).parents[1] / "docs" / "verdict_errors.csv"
CORRELATIONS = (0.0, 0.3, 0.5, 0.9)
RATES = np.array([0.0, 0.2, 0.4, 0.6])
MARGIN, ALLOWED = 0.5, 0.05

Generator = np.random.Generator


@dataclass(frozen=True)
class Outcome:
    """One simulated study.

    Attributes:
        effect: the effect that was found.
        these: the true value in the cells at hand.
        population: the true value in cells like these.
        places: the true values of the cells or series.
    """

    effect: Effect
    these: float
    population: float
    places: np.ndarray


@dataclass(frozen=True)
class Scenario:
    """A planted truth.

    Attributes:
        prediction: kind of prediction.
        truth: the planted truth.
        cells: number of cells, or of series of cells.
        seeds: number of seeds in each cell.
        correlation: correlation of the seeds within a cell.
        simulate: draws a study.
    """

    prediction: str
    truth: str
    cells: int
    seeds: int
    correlation: float
    simulate: Callable[[Generator], Outcome]


def difference(
    rng: Generator, means: np.ndarray, seeds: int, correlation: float, **options: object
) -> Outcome:
    """Paired differences; `options` change the prediction, or the spread of each cell."""
    cells = len(means)
    spread = np.asarray(options.get("spread", np.ones(cells)))
    true = means + correlation**0.5 * rng.normal(size=cells)
    within = (1 - correlation) ** 0.5 * spread[:, None] * rng.normal(size=(cells, seeds))
    values = (true[:, None] + within).ravel()
    predicted, margin = int(options.get("predicted", 1)), float(options.get("margin", np.nan))
    null = options.get("null", (0.0, 0.0))
    finding = paired_effect(np.repeat(np.arange(cells), seeds), values, null=null, margin=margin)
    effect = Effect(name="", predicted=predicted, unit="", finding=finding, margin=margin, null=null)
    return Outcome(effect, float(true.mean()), float(means.mean()), true)


def noise_trend(
    rng: Generator, slopes: np.ndarray, seeds: int, correlation: float, sd: float = 1.0
) -> Outcome:
    """The slope against the noise rate in series of four rates."""
    series = len(slopes)
    cells = slopes[:, None] * RATES + sd * correlation**0.5 * rng.normal(size=(series, len(RATES)))
    values = cells[:, :, None] + sd * (1 - correlation) ** 0.5 * rng.normal(size=(*cells.shape, seeds))
    labels = np.repeat(np.arange(series), len(RATES) * seeds)
    levels = np.tile(np.repeat(RATES, seeds), series)
    true = np.array([slope_of(RATES, of_series) for of_series in cells])
    effect = Effect(name="", predicted=1, unit="", finding=trend(labels, levels, values.ravel()))
    return Outcome(effect, float(true.mean()), float(slopes.mean()), true)


def option_trend(rng: Generator, slope: float, cells: int, seeds: int, correlation: float) -> Outcome:
    """The slope against a hyper-parameter with four values; runs of a seed share its offset, and a cell its slope."""
    of_cells = slope + correlation**0.5 * rng.normal(size=cells)
    slopes = of_cells[:, None] + (1 - correlation) ** 0.5 * rng.normal(size=(cells, seeds))
    offsets = 3 * rng.normal(size=(cells, seeds, 1))
    runs = offsets + slopes[:, :, None] * RATES + 0.05 * rng.normal(size=(cells, seeds, len(RATES)))
    found = [slope_of(RATES, of_seed) for of_seed in runs.reshape(-1, len(RATES))]
    finding = paired_effect(np.repeat(np.arange(cells), seeds), found)
    effect = Effect(name="", predicted=1, unit="", finding=finding)
    return Outcome(effect, float(of_cells.mean()), slope, of_cells)


def association(
    rng: Generator,
    shared: float,
    cells: int,
    families: int,
    kin: int,
    confounding: float | None = None,
    reversed_cell: int | None = None,
) -> Outcome:
    """Two quantities of methods in families; `shared` is their correlation over families, the same in all cells.

    With `confounding`, a third quantity has this correlation with both, and is held fixed.
    """
    first, second, third = rng.normal(size=(3, families))
    second = shared * first + (1 - shared**2) ** 0.5 * second
    if confounding is not None:
        rest = (1 - confounding**2) ** 0.5
        first, second = confounding * third + rest * first, confounding * third + rest * second

    signs = np.where(np.arange(cells) == reversed_cell, -1.0, 1.0)

    def of_runs(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, kin)[None] + 0.3 * rng.normal(size=(cells, families * kin))

    x, y = of_runs(first), of_runs(second) * signs[:, None]
    given = None
    if confounding is not None:
        # the third quantity is known, and x and y have no other noise, which it could not explain
        x, y = (np.repeat(np.repeat(v, kin)[None], cells, 0) for v in (first, second))
        given = np.repeat(np.repeat(third, kin)[None], cells, 0).ravel()
    methods = np.tile(np.arange(families * kin), cells)
    finding = rank_association(
        np.repeat(np.arange(cells), families * kin),
        methods,
        methods // kin,
        x.ravel(),
        y.ravel(),
        given=given,
    )
    noise = 0.0 if confounding is not None else 0.3**2 / kin
    true = (
        2 / np.pi * np.arcsin(shared / (1 + noise))
        if confounding is None
        else 6 / np.pi * np.arcsin(shared / 2)
    )
    places = true * signs
    effect = Effect(name="", predicted=1, unit="", finding=finding)
    return Outcome(effect, float(places.mean()), float(places.mean()), places)


def share(rng: Generator, failing: float, cells: int, seeds: int, together: bool) -> Outcome:
    """Runs of six methods on each draw. They fail independently, or all runs of a draw fail together."""
    fails = rng.random((cells * seeds, 1 if together else 6)) < failing
    fails = np.broadcast_to(fails, (cells * seeds, 6)).astype(float)
    draws = np.repeat(np.arange(cells * seeds), 6)
    finding = failing_share(draws, draws // seeds, fails.ravel(), allowed=ALLOWED)
    effect = Effect(name="", predicted=-1, unit="", finding=finding, null=(ALLOWED, ALLOWED))
    return Outcome(effect, failing, failing, np.array([failing]))


def mixed_model(rng: Generator, cells: int, seeds: int, correlation: float) -> bool:
    """Whether the interval of statsmodels' mixed model, the rival of t over cell means, holds a mean of 0."""
    values = correlation**0.5 * np.repeat(rng.normal(size=cells), seeds)
    values = values + (1 - correlation) ** 0.5 * rng.normal(size=cells * seeds)
    frame = pd.DataFrame({"value": values, "cell": np.repeat(np.arange(cells), seeds)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        low, high = smf.mixedlm("value ~ 1", frame, groups="cell").fit().conf_int().loc["Intercept"]
    return bool(low <= 0 <= high)


def scenarios() -> Iterable[Scenario]:
    """All scenarios."""
    yield from _differences()
    yield from _other_differences()
    yield from _trends()
    yield from _associations()
    for together, failing, (cells, seeds) in itertools.product(
        (False, True), (ALLOWED, 0.4), ((4, 3), (8, 12))
    ):
        often = "as often as allowed" if failing == ALLOWED else "8 times as often"
        truth = f"{often}, runs of a draw {'together' if together else 'alone'}"
        simulate = partial(share, failing=failing, cells=cells, seeds=seeds, together=together)
        yield Scenario("share of failures", truth, cells, seeds, float(together), simulate)


def _differences() -> Iterable[Scenario]:
    for cells, seeds, rho in itertools.product((1, 3, 6, 12), (3, 8), CORRELATIONS):
        for truth, mean in (("no effect", 0.0), ("effect of 1", 1.0)):
            simulate = partial(difference, means=np.full(cells, mean), seeds=seeds, correlation=rho)
            yield Scenario("difference", truth, cells, seeds, rho, simulate)
    for cells, seeds in itertools.product((3, 6, 12), (3, 8)):
        zero = np.zeros(cells)
        spread = np.linspace(0.5, 2.5, cells)
        alternating, one_other = np.full(cells, 2.0), np.full(cells, 2.0)
        alternating[1::2] = one_other[-1] = -2.0
        one_large = np.r_[zero[1:], 5.0]
        for truth, means, options in (
            ("cells of 2 and -2 in turn", alternating, {}),
            ("one cell of -2, others 2", one_other, {}),
            ("no effect, cells of unequal spread", zero, {"spread": spread}),
            ("one cell of 5, others 0, of unequal spread", one_large, {"spread": spread[::-1]}),
        ):
            simulate = partial(difference, means=means, seeds=seeds, correlation=0.0, **options)
            yield Scenario("difference", truth, cells, seeds, 0.0, simulate)


def _other_differences() -> Iterable[Scenario]:
    none = {"margin": MARGIN, "null": (-MARGIN, MARGIN), "predicted": 0}
    not_lower = {"null": (-MARGIN, -MARGIN)}
    for cells, seeds, rho in itertools.product((3, 6, 12), (3, 8), (0.0, 0.5)):
        for prediction, truth, mean, options in (
            ("no difference", "at the margin", MARGIN, none),
            ("no difference", "none", 0.0, none),
            ("not lower by the margin", "lower by the margin", -MARGIN, not_lower),
            ("not lower by the margin", "no lower", 0.0, not_lower),
        ):
            simulate = partial(
                difference, means=np.full(cells, mean), seeds=seeds, correlation=rho, **options
            )
            yield Scenario(prediction, truth, cells, seeds, rho, simulate)


def _trends() -> Iterable[Scenario]:
    rate, option = "trend with the noise rate", "trend with a hyper-parameter"
    for series, seeds, rho in itertools.product((1, 4, 6), (3, 8), CORRELATIONS):
        for truth, slope in (("no effect", 0.0), ("slope of 4", 4.0)):
            simulate = partial(noise_trend, slopes=np.full(series, slope), seeds=seeds, correlation=rho)
            yield Scenario(rate, truth, series, seeds, rho, simulate)
    for seeds in (3, 8):
        slopes = np.array([4.0, 4.0, 4.0, -4.0])
        simulate = partial(noise_trend, slopes=slopes, seeds=seeds, correlation=0.0, sd=0.5)
        yield Scenario(rate, "slopes of 4, 4, 4 and -4", 4, seeds, 0.0, simulate)
    for cells, rho in itertools.product((3, 6), CORRELATIONS):
        for truth, slope in (("no effect", 0.0), ("slope of 1", 1.0)):
            simulate = partial(option_trend, slope=slope, cells=cells, seeds=3, correlation=rho)
            yield Scenario(option, truth, cells, 3, rho, simulate)


def _associations() -> Iterable[Scenario]:
    for cells, (families, kin) in itertools.product((3, 6), ((6, 1), (9, 1), (3, 4), (6, 4))):
        for truth, shared in (("no effect", 0.0), ("correlation of 0.9", 0.9)):
            simulate = partial(association, shared=shared, cells=cells, families=families, kin=kin)
            yield Scenario(f"association, {families} families of {kin}", truth, cells, 1, 0.0, simulate)
    simulate = partial(association, shared=0.9, cells=4, families=9, kin=1, reversed_cell=3)
    yield Scenario(
        "association, 9 families of 1", "correlation of 0.9, -0.9 in one cell", 4, 1, 0.0, simulate
    )
    for families, confounding in itertools.product((6, 9, 40), (0.3, 0.8, 0.95)):
        for truth, shared in (("no effect", 0.0), ("correlation of 0.9", 0.9)):
            simulate = partial(
                association, shared=shared, cells=1, families=families, kin=1, confounding=confounding
            )
            yield Scenario(
                f"partial association, {families} families",
                f"{truth}, both correlate {confounding} with the third",
                1,
                1,
                0.0,
                simulate,
            )


def tally(scenario: Scenario, draws: int, seed: int = 0) -> dict[str, object]:
    """One row of the table."""
    rng = np.random.default_rng(seed)
    outcomes = [scenario.simulate(rng) for _ in range(draws)]
    effects = [outcome.effect for outcome in outcomes]
    verdicts = [effect.verdict for effect in effects]
    wrong = [_is_wrong(outcome) for outcome in outcomes]
    found = [v in (SUPPORTED, SUPPORTED_HERE) for v in verdicts]
    one_sided = [np.all(o.places >= 0) or np.all(o.places <= 0) for o in outcomes]
    return {
        "prediction": scenario.prediction,
        "truth": scenario.truth,
        "cells": scenario.cells,
        "seeds": scenario.seeds,
        "correlation": scenario.correlation,
        "draws": draws,
        "about": effects[0].estimand,
        "wrong": np.mean(wrong),
        "supported": np.mean(found),
        "mixed": np.mean([v == MIXED for v in verdicts]),
        "wrongly_mixed": np.mean(
            [v == MIXED and alike for v, alike in zip(verdicts, one_sided, strict=True)]
        ),
        "estimate": np.nanmean([e.estimate for e in effects]) if np.isfinite(effects[0].estimate) else np.nan,
        "covers_these": _coverage([(o.effect.finding.these, o.these) for o in outcomes]),
        "covers_population": _coverage([(o.effect.finding.like_these, o.population) for o in outcomes]),
    }


def _is_wrong(outcome: Outcome) -> bool:
    """Whether a verdict is wrong: another sign than the true one, or "equivalent" beyond the margin."""
    effect = outcome.effect
    truth = outcome.these if effect.estimand == THESE else outcome.population
    low, high = effect.null
    inside = low - 1e-12 <= truth <= high + 1e-12
    verdict = effect.verdict
    if verdict in (EQUIVALENT, EQUIVALENT_HERE) or (
        effect.predicted == 0 and verdict in (SUPPORTED, SUPPORTED_HERE)
    ):
        return abs(truth) >= effect.margin
    if verdict in (CONTRADICTED, CONTRADICTED_HERE) and effect.predicted == 0:
        return inside
    if verdict not in (SUPPORTED, SUPPORTED_HERE, CONTRADICTED, CONTRADICTED_HERE):
        return False
    as_predicted = (truth > high) == (effect.predicted > 0)
    return inside or as_predicted != (verdict in (SUPPORTED, SUPPORTED_HERE))


def _coverage(tests: list) -> float:
    held = [test.low - 1e-12 <= truth <= test.high + 1e-12 for test, truth in tests if np.isfinite(test.low)]
    return float(np.mean(held)) if held else np.nan


PLANTED = ("effect of 1", "slope of", "correlation of 0.9", "none", "no lower")
"""Beginnings of the truths under which a prediction is true."""


def summary(table: pd.DataFrame) -> str:
    """The table by kind of prediction, for the documentation, in Markdown."""
    head = "| prediction | rows | wrong verdicts: mean, most | supported where true | mixed wrongly, most | "
    lines = [
        f"{head}interval holds these cells | cells like these |",
        "|---|---|---|---|---|---|---|",
    ]
    for prediction, rows in table.groupby("prediction", sort=False):
        planted = rows[rows["truth"].str.startswith(PLANTED) & ~rows["truth"].str.contains("in one cell")]
        cells = [
            prediction,
            str(len(rows)),
            f"{_percent(rows['wrong'].mean())}, {_percent(rows['wrong'].max())}",
            _range(planted["supported"]),
            _percent(rows["wrongly_mixed"].max()),
            _range(rows["covers_these"]),
            _range(rows["covers_population"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).replace("nan%, nan%", "–").replace("nan%", "–")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _range(values: pd.Series) -> str:
    found = values.dropna()
    return f"{found.min():.0%} to {found.max():.0%}" if len(found) else "–"


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    # fewer studies if each takes thousands of permutations
    asked = [(s, options.draws // 6 if "association" in s.prediction else options.draws) for s in scenarios()]
    with get_context("fork").Pool(options.processes) as pool:
        rows = pool.starmap(tally, asked, 1)
    rng = np.random.default_rng(0)
    for cells, correlation in itertools.product((3, 6, 12), (0.0, 0.5, 0.9)):
        draws = options.draws // 5
        held = np.mean([mixed_model(rng, cells, 3, correlation) for _ in range(draws)])
        common = {
            "prediction": "difference, by a mixed model (not used)",
            "truth": "no effect",
            "cells": cells,
            "seeds": 3,
        }
        rows.append({**common, "correlation": correlation, "draws": draws, "covers_population": held})
    pd.DataFrame(rows).to_csv(options.out, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
