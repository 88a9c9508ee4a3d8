"""What docs/benchmarks/curvature.md says about direct and traced products is in its table."""

import csv

from tests.doc_pages import DOCS, page_named, table_named


def test_the_page_says_what_the_table_says():
    page = page_named("benchmarks/curvature")
    shown = ("network", "samples", "direct", "traced", "ratio", "chosen", "pyhessian")
    with (DOCS / "tables" / "tracing.csv").open() as file:
        for row in csv.DictReader(file):
            assert f"| {' | '.join(row[field] for field in shown)} |" in page


def test_the_faster_way_was_chosen():
    table = table_named("tracing")
    assert (
        table["chosen"] == (table["traced"] < table["direct"]).map({True: "traced", False: "direct"})
    ).all()
