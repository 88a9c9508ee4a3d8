"""What docs/benchmarks/curvature.md says about the work beside products is in its table."""

from tests.doc_pages import sentences_of, table_named


def test_the_page_says_what_the_table_says():
    one, five = table_named("vector-work").itertuples()
    words = (
        f"{one.share:.2f} for k={one.k} ({one.products} products) and "
        f"{five.share:.2f} for k={five.k} (the first {five.products})"
    )
    assert words in sentences_of("benchmarks/curvature")
