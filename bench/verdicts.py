"""Error rates of verdicts on planted truths: wrong verdicts, effects that are found, and intervals that hold them.

`python -m bench.verdicts` writes `docs/verdict_errors.csv`: one row for each kind of prediction, planted truth, number
of cells and seeds, and correlation of the seeds within a cell. A cell's value is normal around the planted mean, and
its seeds are normal around the cell's value; both together have a variance of 1. Where the cells of a series are alike,
the correlation is that of the cells of a series, and a cell's value has a variance of 1. Where one run is in several
cells, it is that of the runs of a seed.
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
)
from analysis.statistics import THESE
from bench.planted import (
    ALLOWED,
    Generator,
    Outcome,
    alike,
    association,
    best_value,
    cube,
    curved_association,
    difference,
    noise_trend,
    one_run_in_cells,
    option_trend,
    saturating,
    share,
    trend_of_unequal_seeds,
    unequal_seeds,
)
from landscape.results.wording import counted

TABLE = Path(__file__).parents[1] / "docs" / "verdict_errors.csv"
CORRELATIONS = (0.0, 0.3, 0.5, 0.9)
MARGIN = 0.5
FEWER = {"association": 6, "partial association": 6, "partial association along curves": 3, "best value": 2}
"""Divisors of the number of studies of a prediction each of which takes thousands of permutations, or many tests."""
ALIKE = (0.0, 0.5, 0.9)
"""Correlations of the cells of one series."""
DESIGNS = ((1, 6), (3, 3), (6, 3), (6, 1))
"""Numbers of series, and of rates in each."""
UNEQUAL = "no effect, one cell of 10 times the spread"
"""A truth under which a verdict about these cells is wrong more often: docs/claims.md says how often."""
CURVES = {"saturate with": saturating, "are the cube of": cube}
"""How two quantities depend on the third one that is given."""


@dataclass(frozen=True)
class Scenario:
    """A planted truth.

    Attributes:
        prediction: kind of prediction.
        truth: the planted truth.
        cells: number of cells, or for trends of series of cells.
        seeds: number of seeds in each cell.
        correlation: correlation of the seeds within a cell, of the cells within a series, or of one seed's runs.
        simulate: draws a study.
    """

    prediction: str
    truth: str
    cells: int
    seeds: int
    correlation: float
    simulate: Callable[[Generator], Outcome]


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
    yield from _dependent_differences()
    yield from _other_differences()
    yield from _best_values()
    yield from _trends()
    yield from _associations()
    yield from _stopped_halfway()
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


def _design(series: int, rates: int) -> str:
    return f"difference, {series} series of {counted(rates, 'rates')}"


def _dependent_differences() -> Iterable[Scenario]:
    for (series, rates), correlation in itertools.product(DESIGNS, ALIKE):
        for truth, mean in (("no effect", 0.0), ("effect of 1", 1.0)):
            simulate = partial(alike, mean=mean, series=series, rates=rates, seeds=3, correlation=correlation)
            name = _design(series, rates)
            yield Scenario(name, truth, series * rates, 3, correlation, simulate)
    for correlation in ALIKE:
        for truth, mean in (("no effect", 0.0), ("effect of 1", 1.0)):
            simulate = partial(one_run_in_cells, mean=mean, cells=3, seeds=8, correlation=correlation)
            yield Scenario("difference, runs of a seed alike", truth, 3, 8, correlation, simulate)
    for cells, seeds in ((5, 2), (3, 3), (3, 8)):
        spread = np.r_[10.0, np.ones(cells - 1)]
        simulate = partial(difference, means=np.zeros(cells), seeds=seeds, correlation=0.0, spread=spread)
        yield Scenario("difference", UNEQUAL, cells, seeds, 0.0, simulate)


def _best_values() -> Iterable[Scenario]:
    inside = np.array([False, True, True, True, False])
    for truth, means in (
        ("no value is better", [0.0, 0.0, 0.0, 0.0, 0.0]),
        ("the values inside are worse by 1", [0.0, -1.0, -1.0, -1.0, 0.0]),
        ("a value outside is better by 1", [1.0, 0.0, 0.0, 0.0, 0.0]),
        ("a value inside and one outside alike", [0.0, -9.0, 0.0, -9.0, -9.0]),
        ("effect of 1 inside", [0.0, 0.0, 1.0, 0.0, 0.0]),
        ("effect of 2 inside", [0.0, 0.0, 2.0, 0.0, 0.0]),
    ):
        for cells, seeds in itertools.product((1, 3, 6), (3, 8)):
            simulate = partial(best_value, means=np.array(means), inside=inside, cells=cells, seeds=seeds)
            yield Scenario("best value", truth, cells, seeds, 0.0, simulate)


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

    for families, (words, shape) in itertools.product((9, 20), CURVES.items()):
        simulate = partial(curved_association, shape=shape, families=families)
        name = f"partial association along curves, {families} families"
        yield Scenario(name, f"no effect, both {words} the third", 1, 1, 0.0, simulate)


def _stopped_halfway() -> Iterable[Scenario]:
    """Studies whose last cells have one seed, and a larger spread."""
    for truth, mean in (("no effect", 0.0), ("effect of 1", 1.0)):
        for seeds, spread in (((5, 5, 1), (1.0, 3.0, 5.0)), ((8, 8, 1), (0.5, 1.0, 4.0))):
            simulate = partial(unequal_seeds, mean=mean, seeds=seeds, spread=spread)
            yield Scenario("difference, one cell of one seed", truth, len(seeds), seeds[0], 0.0, simulate)
    for series in (1, 6):
        simulate = partial(
            trend_of_unequal_seeds, series=series, seeds=(5, 3, 1, 1), spread=(1.0, 1.0, 2.0, 3.0)
        )
        yield Scenario("trend, two rates of one seed", "no effect", series, 5, 0.0, simulate)


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


PLANTED = ("effect of", "slope of", "correlation of 0.9", "none", "no lower")
"""Beginnings of the truths under which a prediction is true."""


def summary(table: pd.DataFrame) -> str:
    """The table by kind of prediction, for the documentation, in Markdown."""
    head = "| prediction | rows | wrong verdicts: mean, most | supported where true | mixed wrongly, most | "
    lines = [
        f"{head}interval holds these cells | data and noise like these |",
        "|---|---|---|---|---|---|---|",
    ]
    for prediction, rows in table.groupby("prediction", sort=False):
        planted = rows[rows["truth"].str.startswith(PLANTED) & ~rows["truth"].str.contains("in one cell")]
        usual = rows[rows["truth"] != UNEQUAL]
        cells = [
            prediction,
            str(len(usual)),
            f"{_percent(usual['wrong'].mean())}, {_percent(usual['wrong'].max())}",
            _range(planted["supported"]),
            _percent(usual["wrongly_mixed"].max()),
            _range(usual["covers_these"]),
            _range(usual["covers_population"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).replace("nan%, nan%", "–").replace("nan%", "–")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _range(values: pd.Series) -> str:
    found = values.dropna()
    return f"{found.min():.0%} to {found.max():.0%}" if len(found) else "–"


def _mixed_models(draws: int) -> Iterable[dict[str, object]]:
    """Rows of a rival that is not used: whether its interval holds the mean of the population, 0."""
    rng = np.random.default_rng(0)
    for cells, correlation in itertools.product((3, 6, 12), (0.0, 0.5, 0.9)):
        held = np.mean([mixed_model(rng, cells, 3, correlation) for _ in range(draws // 5)])
        yield _rival("difference, by a mixed model (not used)", cells, correlation, draws // 5, held)


def _cells_as_units(draws: int) -> Iterable[dict[str, object]]:
    """As `_mixed_models`, of the t test over cells that takes no notice of their series."""
    rng = np.random.default_rng(0)
    for (series, rates), correlation in itertools.product(DESIGNS, ALIKE):
        outcomes = [alike(rng, 0.0, series, rates, 3, correlation, by_cells=True) for _ in range(draws)]
        held = _coverage([(each.effect.finding.like_these, 0.0) for each in outcomes])
        name = f"{_design(series, rates)}, cells as units (not used)"
        yield _rival(name, series * rates, correlation, draws, held)


def _rival(prediction: str, cells: int, correlation: float, draws: int, held: float) -> dict[str, object]:
    common = {"prediction": prediction, "truth": "no effect", "cells": cells, "seeds": 3}
    return {**common, "correlation": correlation, "draws": draws, "covers_population": held}


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument(
        "--only", nargs="+", help="beginnings of predictions; the other rows of the table stay", default=()
    )
    options = parser.parse_args()
    chosen = [s for s in scenarios() if not options.only or s.prediction.startswith(tuple(options.only))]
    asked = [(s, options.draws // FEWER.get(s.prediction.split(",")[0], 1)) for s in chosen]
    with get_context("fork").Pool(options.processes) as pool:
        rows = pool.starmap(tally, asked, 1)
    if options.only:
        found = _replaced(pd.read_csv(options.out), pd.DataFrame(rows))
    else:
        found = pd.DataFrame([*rows, *_mixed_models(options.draws), *_cells_as_units(options.draws)])
    found.to_csv(options.out, index=False, float_format="%.4f")


def _replaced(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The table with the rows of some predictions anew, in the order of all scenarios."""
    order = {(s.prediction, s.truth, s.cells, s.seeds, s.correlation): i for i, s in enumerate(scenarios())}
    whole = pd.concat([table[~table["prediction"].isin(rows["prediction"])], rows])
    keys = whole[["prediction", "truth", "cells", "seeds", "correlation"]].itertuples(index=False, name=None)
    # rivals, which are no scenarios, come last
    places = [order.get(key, len(order)) for key in keys]
    return whole.iloc[np.argsort(places, kind="stable")]


if __name__ == "__main__":
    main()
