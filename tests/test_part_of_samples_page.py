"""What docs/curvature.md says about traces by the help of a part is in its table."""

from tests.doc_pages import sentences_of, table_named


def test_the_page_says_what_the_table_says():
    page = sentences_of("curvature")
    rows = table_named("part-of-samples").set_index("who")
    plain, part = rows.loc["ours"], rows.loc["ours, part 1/8"]
    assert f"on {part['samples']:,} digits" in page
    assert f"took {part['products']} products in place of {plain['products']}" in page
    assert f"were {part['error']:.1%} and {plain['error']:.1%} in root mean square of 5 draws" in page
    assert {part["held"], plain["held"]} == {"5 of 5"}
