"""The committed tables behind docs/findings.md: verdicts and mean results of studies.

    python bench/findings.py quick results/quick
    python bench/findings.py redrawn results/static-labels results/fresh-labels results/simulated-noise \
        results/smoothed-labels --claims F1 F2 F3

Writes docs/tables/NAME-verdicts.csv and docs/tables/NAME-results.csv, from which the tables of the page are made.
`tests/test_findings.py` compares the page with them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.claims.quantities import flag_of
from analysis.report.chosen import judge_studies, judgements_of
from analysis.store import read_tables
from ncsam.probes import GROUPS

TABLES = Path(__file__).resolve().parents[1] / "docs/tables"
MEANS = (
    "test_accuracy",
    "best_test_accuracy",
    "memorized",
    *(
        f"{measure}_{loss}"
        for loss in ("observed", "clean")
        for measure in ("top_eigenvalue", "trace", "sharpness", "sharpness_elementwise", "sharpness_filter")
    ),
    "jacobian_trace_observed",
    "uncertainty_observed",
    "gauss_newton_trace_observed",
    "functional_norm_observed",
    "functional_norm_clean",
    "loss_auroc",
    *(
        f"{name}_auroc{where}"
        for name in ("input_curvature", "gauss_newton_trace")
        for where in ("", "_at_equal_loss")
    ),
    "stability_edge",
    *("early_memorized", "early_fitted", "memorized_at_fit", "weight_tail_index", "weight_norm"),
    "early_trace",
    *(f"mean_probe_damping_{group}" for group in GROUPS),
    "mean_cos_gstar_noise",
)


def verdicts(roots: Sequence[Path], claims: Sequence[str] | None = None) -> pd.DataFrame:
    """One row for each effect: claim, role, prediction, estimate with interval, deciding p-value, units and verdict.

    As `ncsam claims` judges them: p-values are corrected over all that these studies measured of a family of claims,
    also where only some of its claims are asked for.
    """
    judgements = judge_studies(roots)
    rows = []
    for judgement in judgements_of(judgements, claims) if claims else judgements:
        for role, effects in (("prediction", judgement.effects), ("control", judgement.controls)):
            for effect in effects:
                rows.append(
                    {
                        "claim": judgement.claim.id,
                        "claim_verdict": judgement.verdict,
                        "role": role,
                        "effect": effect.name,
                        "estimate": effect.estimate,
                        "low": effect.low,
                        "high": effect.high,
                        "unit": effect.unit,
                        "p": effect.deciding_p,
                        "units": effect.samples,
                        "counted": effect.counted if effect.verdict != "not measured" else "",
                        "not_converged": effect.coverage.not_converged,
                        "verdict": effect.verdict,
                    }
                )
    return pd.DataFrame(rows)


def results(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation over seeds, and number of values, of what was measured.

    Measures count if they converged.
    """
    table = table.copy()
    for name in [name for name in MEANS if name in table]:
        table[name] = table[name].where(~(flag_of(table, name) < 1))
    present = [name for name in MEANS if name in table and table[name].notna().any()]
    grouped = table.groupby(["dataset", "noise_kind", "noise_rate", "method"], sort=False)[present]
    means = grouped.agg(["mean", "std", "count"])
    means.columns = ["_".join(column) for column in means.columns]
    return means.reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--claims", nargs="+", help="(default: all)")
    arguments = parser.parse_args()
    TABLES.mkdir(exist_ok=True)
    verdicts(arguments.results, arguments.claims).to_csv(
        TABLES / f"{arguments.name}-verdicts.csv", index=False, float_format="%.6g"
    )
    results(read_tables(arguments.results)).to_csv(
        TABLES / f"{arguments.name}-results.csv", index=False, float_format="%.6g"
    )


if __name__ == "__main__":
    main()
