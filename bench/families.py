"""How often a family of predictions has a wrong verdict, on planted truths.

`python bench/families.py` writes two tables. `docs/tables/family-errors.csv`: effects, equivalences and reversals are
corrected apart, so that the rates of 5% of each kind may add up. `docs/tables/family-signs.csv`: whether any of many
predictions without an effect has a sign, where spreads are unequal. Holm's correction asks for p-values far below 5%,
which few seeds give only if the degrees of freedom are right.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.claims.effect import CONTRADICTED_HERE, INCONCLUSIVE, MIXED, SUPPORTED_HERE, Effect, corrected
from analysis.statistics import Finding, paired_effect, trend

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "family-errors.csv"
SIGNS = TABLE.with_name("family-signs.csv")
STUDIES, SEEDS, LARGE = 4000, 8, 50.0
PREDICTIONS = 10_000
RATES = (0.0, 0.2, 0.4, 0.6)
SPREADS = {
    "4 cells, one of 10 times the spread": (10.0, 1.0, 1.0, 1.0),
    "10 cells, one of 10 times the spread": (10.0, *(1.0,) * 9),
    "a trend whose spread grows with the rate": (0.2, 1.0, 2.0, 3.0),
}
"""The spread in each cell of one data set."""


def tally(studies: int, seed: int = 0) -> dict[str, float]:
    """The share of studies with wrong verdicts on two predictions.

    The first prediction has no effect in its one cell. The second has a large effect in one cell and none in the other,
    so that its sign does not depend on the cell.

    Args:
        studies: number of simulated studies, of `SEEDS` seeds a cell with a standard deviation of 1.
        seed: seed of the simulation.
    """
    generator = np.random.default_rng(seed)
    cells = ["first"] * SEEDS + ["second"] * SEEDS
    wrong = np.zeros((studies, 2), dtype=bool)
    for study in range(studies):
        none, partial = generator.normal(size=SEEDS), generator.normal(size=2 * SEEDS)
        partial[:SEEDS] += LARGE
        findings = (paired_effect(cells[:SEEDS], none), paired_effect(cells, partial))
        found = corrected([Effect(name="x", predicted=1, unit="", finding=finding) for finding in findings])
        wrong[study] = found[0].verdict != INCONCLUSIVE, found[1].verdict == MIXED
    effects, reversals = wrong.mean(0)
    return {
        "studies": studies,
        "wrong_effects": effects,
        "wrong_reversals": reversals,
        "any_wrong": wrong.any(1).mean(),
    }


def without_effect(generator: np.random.Generator, design: str, seeds: int) -> Finding:
    """One prediction of a design of `SPREADS`, whose runs have a mean of 0."""
    spread = np.repeat(SPREADS[design], seeds)
    values, data_sets = spread * generator.normal(size=len(spread)), np.zeros(len(spread))
    if "trend" in design:
        return trend(data_sets, np.repeat(RATES, seeds), values)
    return paired_effect(np.repeat(np.arange(len(SPREADS[design])), seeds), values, data_sets=data_sets)


def any_sign(findings: list[Finding], predictions: int) -> float:
    """The share of families of so many predictions, from the findings in turn, of which any has a sign."""
    families = [findings[i : i + predictions] for i in range(0, len(findings) - predictions + 1, predictions)]
    signs = [
        any(
            effect.verdict in (SUPPORTED_HERE, CONTRADICTED_HERE)
            for effect in corrected([Effect(name="x", predicted=1, unit="", finding=each) for each in family])
        )
        for family in families
    ]
    return float(np.mean(signs))


def signs_without_effect(findings: int, seed: int = 0) -> list[dict[str, object]]:
    """Rows of the second table, from so many predictions of each design and number of seeds."""
    rows: list[dict[str, object]] = []
    for design in SPREADS:
        for seeds in (3, 5, 8):
            generator = np.random.default_rng(seed)
            found = [without_effect(generator, design, seeds) for _ in range(findings)]
            rows += [
                {"design": design, "seeds": seeds, "predictions": many, "studies": findings // many}
                | {"any_sign": any_sign(found, many)}
                for many in (10, 20)
            ]
    return rows


if __name__ == "__main__":
    pd.DataFrame([tally(STUDIES)]).to_csv(TABLE, index=False, float_format="%.4g")
    pd.DataFrame(signs_without_effect(PREDICTIONS)).to_csv(SIGNS, index=False, float_format="%.4g")
