"""What docs/curvature.md says about sampling errors is in its table."""

import pandas as pd


def test_the_page_says_what_the_table_says(pytestconfig):
    page = " ".join((pytestconfig.rootpath / "docs/curvature.md").read_text().split())
    table = pd.read_csv(pytestconfig.rootpath / "docs/tables/sampling.csv")
    assert set(table["draws"]) == {100}
    assert f"in {table['held'].min():.0%} to {table['held'].max():.0%} of the draws" in page
    top = table[table["quantity"] == "eigenvalue 1"].set_index("samples").loc[100]
    excess = top["measured"] - top["truth"]
    assert f"{excess / top['truth']:.0%} too high on average" in page
    assert f"the estimated bias was {top['bias'] / excess:.0%} of that" in page
