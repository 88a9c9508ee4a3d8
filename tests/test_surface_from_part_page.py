"""What docs/benchmarks/surfaces.md says about surfaces from a part of the samples is in its table."""

from tests.doc_pages import page_named, table_named


def test_the_page_says_what_the_table_says():
    page = page_named("benchmarks/surfaces")
    for row in table_named("surface-from-part").itertuples():
        cost = f"{row.plain} | {row.part} + {row.correction} = {row.both}"
        shown = (
            f"{row.network} | {row.difference:.1%} | {cost} | {row.both_error:.2f} | {row.plain_error:.2f}"
        )
        assert f"| {shown} |" in page
