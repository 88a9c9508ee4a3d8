"""The committed tables behind the pages of findings: verdicts and mean results of studies.

    python bench/findings.py quick results/quick
    python bench/findings.py redrawn results/static-labels results/fresh-labels results/simulated-noise \
        results/smoothed-labels --claims F1 F2 F3
    python bench/findings.py quick

Writes docs/tables/NAME-verdicts.csv and docs/tables/NAME-results.csv, from which the tables in docs/findings/ are made,
and all verdicts into docs/findings.md. `tests/test_findings.py` compares the pages with the tables. The runs go into
docs/tables/runs/NAME.csv, so that a study can be judged again when the rules change: without results, its runs are
those of this file.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.claims import CLAIMS, chosen_claims, judge
from analysis.claims.effect import NOT_MEASURED
from analysis.claims.quantities import flag_of
from analysis.report.chosen import claims_of, judgements_of, runs_of
from ncsam.probes import GROUPS

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLES = DOCS / "tables"
RUNS = TABLES / "runs"
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


@dataclass(frozen=True)
class Judged:
    """What a study's verdicts rest on.

    Attributes:
        runs: all runs, those that failed among them.
        family: the claims that the study chose: p-values are corrected over all that were measured of a family.
        claims: those of them whose verdicts are shown.
    """

    runs: pd.DataFrame
    family: list[str]
    claims: list[str]

    @classmethod
    def of_results(cls, roots: Sequence[Path], claims: Sequence[str] | None) -> Judged:
        """The runs of these folders of results, as `ncsam claims` judges them."""
        family = [claim.id for claim in claims_of(roots)]
        return cls(runs_of(roots), family, list(claims or family))

    @classmethod
    def of_file(cls, path: Path) -> Judged:
        """The runs that `write` wrote."""
        with path.open() as file:
            family, claims = (file.readline().removeprefix("# ").split() for _ in range(2))
            runs = pd.read_csv(file, keep_default_na=False, na_values=[""], low_memory=False)
        # a copy lies in few blocks of memory, to which columns are added without a warning
        return cls(runs.copy(), family, claims)

    def write(self, path: Path) -> None:
        """Writes the claims into two lines, and then the runs."""
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as file:
            file.writelines(f"# {' '.join(claims)}\n" for claims in (self.family, self.claims))
            self.runs.to_csv(file, index=False)


def verdicts(judged: Judged) -> pd.DataFrame:
    """One row for each effect: claim, role, prediction, estimate with interval, deciding p-value, units and verdict."""
    families = {CLAIMS[name].family for name in judged.claims}
    judgements = judge(
        judged.runs, chosen_claims([name for name in judged.family if CLAIMS[name].family in families])
    )
    rows = []
    for judgement in judgements_of(judgements, judged.claims):
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

    Measures count if they converged. Runs that failed have none.
    """
    table = table[~table["failed"]].copy()
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
    parser.add_argument(
        "results", nargs="*", type=Path, help="(default: the runs of docs/tables/runs/NAME.csv)"
    )
    parser.add_argument("--claims", nargs="+", help="(default: all)")
    arguments = parser.parse_args()
    of_runs = RUNS / f"{arguments.name}.csv"
    if arguments.results:
        Judged.of_results(arguments.results, arguments.claims).write(of_runs)
    judged = Judged.of_file(of_runs)
    for kind, table in (("verdicts", verdicts(judged)), ("results", results(judged.runs))):
        table.to_csv(TABLES / f"{arguments.name}-{kind}.csv", index=False, float_format="%.6g")
    write_overview()


if __name__ == "__main__":
    main()
