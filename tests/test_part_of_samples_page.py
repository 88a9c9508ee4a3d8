"""What docs/curvature.md says about traces by the help of a part is in its table."""

from tests.doc_pages import sentences_of, table_named


def rows_asked(what):
    rows = table_named("part-of-samples").set_index(["asked", "who"]).loc[what]
    return rows.loc["ours"], rows.loc["ours, part 1/8"]


def test_the_page_says_what_the_table_says_of_a_tolerance():
    page = sentences_of("curvature")
    plain, part = rows_asked("rtol 0.01")
    assert f"on {part['samples']:,} digits" in page
    assert f"took {part['products']} products in place of {plain['products']}" in page
    assert f"were {part['error']:.1%} and {plain['error']:.1%} in root mean square of 10 draws" in page
    assert part["held"] == "10 of 10"


def test_the_page_says_what_the_table_says_of_a_budget():
    plain, part = rows_asked("25 products")
    said = f"the error was {part['error']:.1%} with the part and {plain['error']:.1%} without"
    assert said in sentences_of("curvature")
    assert part["products"] == 25
    assert part["held"] == "10 of 10"
