"""Every number of the tables in docs/findings.md and of README's findings is that of a committed table."""

import re

import pandas as pd
import pytest

STUDIES = ("quick", "redrawn")


def verdict_row(row):
    """A row of `docs/tables/*-verdicts.csv` as the page has it."""
    if row["verdict"] == "not measured":
        return None
    interval = f"{row['estimate']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]"
    unit = f" {row['unit']}" if isinstance(row["unit"], str) else ""
    p = "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
    counted = f"{row['units']} {row['counted']}"
    cells = (row["claim"], row["role"], row["effect"], interval + unit, p, counted, row["verdict"])
    return f"| {' | '.join(map(str, cells))} |"


def result_row(row):
    """A row of `docs/tables/*-results.csv` as the page has it."""
    numbers = [f"{100 * row['test_accuracy_mean']:.1f}"]
    numbers += [
        f"{row[f'{name}_mean']:.3g}"
        for name in (
            "top_eigenvalue_observed",
            "sharpness_observed",
            "sharpness_clean",
            "jacobian_trace_observed",
            "uncertainty_observed",
            "gauss_newton_trace_observed",
            "functional_norm_observed",
            "functional_norm_clean",
        )
    ]
    return f"| {row['noise_kind']} | {row['noise_rate']:.0%} | {row['method']} | {' | '.join(numbers)} |"


def table(root, study, kind):
    return pd.read_csv(root / f"docs/tables/{study}-{kind}.csv")


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize(("kind", "render"), [("verdicts", verdict_row), ("results", result_row)])
def test_the_page_has_the_rows_of_the_table_and_no_other(pytestconfig, study, kind, render):
    page = (pytestconfig.rootpath / "docs/findings.md").read_text()
    (section,) = re.findall(rf"<!-- {study}-{kind} -->\n(.*?)\n\n", page, flags=re.S)
    expected = [
        row for row in map(render, table(pytestconfig.rootpath, study, kind).to_dict("records")) if row
    ]
    if kind == "verdicts":
        shown = [row for row in expected if row in section]
        predictions = [row for row in expected if row.split(" | ")[1] == "prediction"]
        assert set(predictions) <= set(shown)
    else:
        shown = expected
    assert section.splitlines()[2:] == shown


def test_the_readme_states_numbers_of_the_tables(pytestconfig):
    readme = (pytestconfig.rootpath / "README.md").read_text()
    results = table(pytestconfig.rootpath, "quick", "results").set_index(["noise_rate", "method"])
    redrawn = table(pytestconfig.rootpath, "redrawn", "results").set_index(
        ["noise_kind", "noise_rate", "method"]
    )
    sgd, noisy = results.loc[0.0, "SGD"], results.loc[0.6, "SGD"]
    fixed, fresh = (redrawn.loc[kind, 0.4, "SGD"] for kind in ("symmetric", "symmetric, redrawn each step"))
    for number in (
        f"from {sgd['top_eigenvalue_observed_mean']:.1f} to {noisy['top_eigenvalue_observed_mean']:.0f}",
        f"from {sgd['uncertainty_observed_mean']:.3f} to {noisy['uncertainty_observed_mean']:.2f}",
        f"{sgd['jacobian_trace_observed_mean']:,.0f} to {noisy['jacobian_trace_observed_mean']:,.0f}",
        f"{noisy['functional_norm_observed_mean']:.1f} with the observed and {noisy['functional_norm_clean_mean']:.1f}",
        f"from {fixed['jacobian_trace_observed_mean']:,.0f} to {fresh['jacobian_trace_observed_mean']:.0f}",
        f"from {100 * fixed['test_accuracy_mean']:.0f}% to {100 * fresh['test_accuracy_mean']:.0f}%",
    ):
        assert number in readme, number


def test_the_readme_states_verdicts_of_the_tables(pytestconfig):
    readme = (pytestconfig.rootpath / "README.md").read_text()
    for study, claim in re.findall(r"\| (?:<!-- (\w+) -->)(\w+):", readme):
        verdicts = table(pytestconfig.rootpath, study, "verdicts")
        verdict = verdicts.loc[verdicts["claim"] == claim, "claim_verdict"].iloc[0]
        assert re.search(rf"<!-- {study} -->{claim}:[^|]*\| {verdict} \|", readme), (claim, verdict)
