"""The committed tables behind the pages of findings: verdicts and mean results of studies.

    python bench/findings.py quick results/quick
    python bench/findings.py redrawn results/static-labels results/fresh-labels results/simulated-noise \
        results/smoothed-labels --claims F1 F2 F3

Writes docs/tables/NAME-verdicts.csv and docs/tables/NAME-results.csv, from which the tables in docs/findings/ are made,
and all verdicts into docs/findings.md. `tests/test_findings.py` compares the pages with the tables.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.claims import CLAIMS
from analysis.claims.effect import NOT_MEASURED
from analysis.claims.quantities import flag_of
from analysis.report.chosen import judge_studies, judgements_of
from analysis.store import read_tables
from ncsam.probes import GROUPS

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLES = DOCS / "tables"
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


def overview() -> list[str]:
    """The rows of docs/findings.md: each claim, with its verdict in every study that measured it."""
    marked = re.compile(r"<!-- ([\w-]+)-verdicts -->")
    pages = {
        name: path.name for path in DOCS.glob("findings/*.md") for name in marked.findall(path.read_text())
    }
    verdicts = {
        name: pd.read_csv(TABLES / f"{name}-verdicts.csv").groupby("claim")["claim_verdict"].first()
        for name in sorted(pages)
    }
    rows = []
    for claim in CLAIMS.values():
        studies: dict[str, list[str]] = {}
        for name, of in verdicts.items():
            studies.setdefault(of.get(claim.id, NOT_MEASURED), []).append(f"[{name}](findings/{pages[name]})")
        judged = [
            f"{verdict}: {', '.join(links)}" for verdict, links in studies.items() if verdict != NOT_MEASURED
        ]
        rows.append(f"| {claim.id} | {claim.statement} | {'; '.join(judged)} |")
    return rows


def write_overview() -> None:
    """Writes the overview between its marks in docs/findings.md."""
    page = DOCS / "findings.md"
    lines = ["<!-- overview -->", "| claim | what it says | verdict: studies |", "|---|---|---|", *overview()]
    start, rest = page.read_text().split(lines[0])
    _, end = rest.split("<!-- end -->")
    page.write_text("\n".join([start + lines[0], *lines[1:], "<!-- end -->"]) + end)


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
    write_overview()


if __name__ == "__main__":
    main()
