"""How often a family of predictions has a wrong verdict, on planted truths.

`python bench/families.py` writes `docs/tables/family-errors.csv`. Effects, equivalences and reversals are corrected
apart, so that the rates of 5% of each kind may add up.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.claims.effect import INCONCLUSIVE, MIXED, Effect, corrected
from analysis.statistics import paired_effect

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "family-errors.csv"
STUDIES, SEEDS, LARGE = 4000, 8, 50.0


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


if __name__ == "__main__":
    pd.DataFrame([tally(STUDIES)]).to_csv(TABLE, index=False, float_format="%.4g")
