"""Error rates of verdicts on planted truths: wrong verdicts, effects that are found, and intervals that hold them.

`python -m bench.verdicts` writes `docs/verdict_errors.csv`: one row for each kind of prediction, planted truth, number
of cells and seeds, and correlation of the seeds within a cell. A cell's value is normal around the planted mean, and
its seeds are normal around the cell's value; both together have a variance of 1. Where the cells of a data set are
alike, the correlation is that of the cells of a data set, and a cell's value has a variance of 1. Where one run is in
several cells, it is that of the runs of a seed.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Iterable
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
from bench.planted import Generator, Outcome, alike
from bench.scenarios import ALIKE, DESIGNS, Scenario, design, scenarios

TABLE = Path(__file__).parents[1] / "docs" / "verdict_errors.csv"
FEWER = {"association": 6, "partial association": 6, "partial association along curves": 3, "best value": 2}
"""Divisors of the number of studies of a prediction each of which takes thousands of permutations, or many tests."""


def mixed_model(rng: Generator, cells: int, seeds: int, correlation: float) -> bool:
    """Whether the interval of statsmodels' mixed model, the rival of t over cell means, holds a mean of 0."""
    values = correlation**0.5 * np.repeat(rng.normal(size=cells), seeds)
    values = values + (1 - correlation) ** 0.5 * rng.normal(size=cells * seeds)
    frame = pd.DataFrame({"value": values, "cell": np.repeat(np.arange(cells), seeds)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        low, high = smf.mixedlm("value ~ 1", frame, groups="cell").fit().conf_int().loc["Intercept"]
    return bool(low <= 0 <= high)


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
        f"{head}interval holds these cells | data like these |",
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


def _mixed_models(draws: int) -> Iterable[dict[str, object]]:
    """Rows of a rival that is not used: whether its interval holds the mean of the population, 0."""
    rng = np.random.default_rng(0)
    for cells, correlation in itertools.product((3, 6, 12), (0.0, 0.5, 0.9)):
        held = np.mean([mixed_model(rng, cells, 3, correlation) for _ in range(draws // 5)])
        yield _rival("difference, by a mixed model (not used)", cells, correlation, draws // 5, held)


def _cells_as_units(draws: int) -> Iterable[dict[str, object]]:
    """As `_mixed_models`, of the t test over cells that takes no notice of their data sets."""
    rng = np.random.default_rng(0)
    for (data_sets, in_each), correlation in itertools.product(DESIGNS, ALIKE):
        outcomes = [alike(rng, 0.0, data_sets, in_each, 3, correlation, by_cells=True) for _ in range(draws)]
        held = _coverage([(each.effect.finding.like_these, 0.0) for each in outcomes])
        name = f"{design(data_sets, in_each)}, cells as units (not used)"
        yield _rival(name, data_sets * in_each, correlation, draws, held)


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
