"""What docs/curvature.md says about sampling errors is in its table."""

from tests.doc_pages import page_named, sentences_of, table_named


def test_the_page_says_what_the_table_says():
    page = sentences_of("curvature")
    table = table_named("sampling")
    assert set(table["draws"]) == {100}
    assert f"in {table['held'].min():.0%} to {table['held'].max():.0%} of the draws" in page
    hundred = table[table["samples"] == 100].set_index("quantity")
    excess = hundred["measured"] - hundred["truth"]
    found = (hundred["bias"] / excess).map("{:.0%}".format)
    assert f"{excess['eigenvalue 1'] / hundred.loc['eigenvalue 1', 'truth']:.0%} too high on average" in page
    assert (
        f"the estimated bias was {found['eigenvalue 1']} of that, {found['eigenvalue 2']} for the second and "
        f"{found['eigenvalue 3']} for the third"
    ) in page
    trace = table[table["quantity"] == "trace"].set_index("samples").loc[1600]
    assert f"was {trace['spread'] / trace['standard_error']:.1f} times its standard error" in page


def test_the_page_says_how_many_samples_were_enough():
    page = page_named("curvature")
    for row in table_named("enough-samples").itertuples():
        shown = f"{row.rtol:.0%} | {row.samples} | {row.cost:.2f} | {row.error:.1%} | {row.held:.0%}"
        assert f"| {row.measure} | {shown} |" in page
    assert f"of {row.of:,}" in page


def test_the_error_that_was_asked_for_was_kept():
    table = table_named("enough-samples")
    assert (table["error"] <= table["rtol"]).all()
