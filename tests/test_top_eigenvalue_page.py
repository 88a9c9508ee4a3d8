"""What docs/benchmarks/curvature.md says about the largest eigenvalue beside the peers is in its table."""

from tests.doc_pages import page_named, sentences_of, table_named


def test_the_page_says_what_the_table_says():
    page = page_named("benchmarks/curvature")
    for row in table_named("top-eigenvalue").itertuples():
        found = f"{row.error:.0e} | {row.products:g} | {row.seconds:.2f} | {row.of_ours:.2f}"
        assert f"| {row.network} | {row.who} | {row.setting} | {found} |" in page


def test_what_is_said_below_the_table_is_in_it():
    page, table = sentences_of("benchmarks/curvature"), table_named("top-eigenvalue")
    assert table["network"].nunique() == 5
    assert (table["error"] <= 1e-3).all()
    ours, part, pyhessian, eigenthings = (
        table[table["who"] == who]
        for who in ("ours", "ours, from an eighth", "PyHessian", "hessian-eigenthings")
    )
    assert (pyhessian["of_ours"] > 1 / 5).all()
    assert (eigenthings["of_ours"] > 1 / 3).all()
    krylov = [*ours["products"], *eigenthings["products"]]
    for words in (
        f"find it in {min(krylov):.0f} to {max(krylov):.0f} products",
        "power iteration in {:.0f} to {:.0f}".format(*ends_of(pyhessian["products"])),
        "PyHessian takes {:.2f} to {:.2f} of our time".format(*ends_of(pyhessian["of_ours"])),
        "hessian-eigenthings {:.2f} to {:.2f}".format(*ends_of(eigenthings["of_ours"])),
        "takes {:.2f} to {:.2f} of the time without".format(*ends_of(part["of_ours"])),
    ):
        assert words in page, words


def ends_of(values):
    return min(values), max(values)
