"""What docs/benchmarks/curvature.md says about the largest eigenvalue beside the peers is in its table."""

from tests.doc_pages import page_named, sentences_of, table_named


def test_the_page_says_what_the_table_says():
    page = page_named("benchmarks/curvature")
    for row in table_named("top-eigenvalue").itertuples():
        found = f"{row.error:.0e} | {row.products:g} | {row.seconds:.2f} | {row.of_ours:.2f}"
        assert f"| {row.network} | {row.who} | {row.setting} | {found} |" in page


def test_what_is_said_below_the_table_is_in_it():
    page, table = sentences_of("benchmarks/curvature"), table_named("top-eigenvalue")
    assert (table.error <= 1e-3).all()
    of_pyhessian = table[table.who == "PyHessian"].set_index("network").of_ours
    assert (of_pyhessian > 1 / 5).all()
    assert f"on the MLP PyHessian takes {of_pyhessian['MLP 256-256']:.2f} of our time" in page
    assert (table.of_ours[table.who == "hessian-eigenthings"] > 1 / 3).all()
    assert table.products[table.who != "PyHessian"].between(4, 5).all()
    own, part = (
        table[table.who == who].set_index("network").products for who in ("ours", "ours, from an eighth")
    )
    assert (own - part).to_dict() == {"MLP 256-256": -0.5, "CNN 16-32-64, BatchNorm": 0.5}
