"""What docs/benchmarks/surfaces.md says about adaptive surfaces is in its table."""

from tests.doc_pages import page_named, sentences_of, table_named

POINTS = 51 * 51


def test_the_page_says_what_the_table_says():
    page = page_named("benchmarks/surfaces")
    for (network, images), rows in table_named("adaptive").groupby(["network", "images"]):
        most = rows.max(numeric_only=True)
        count = f"{most.evaluations:.0f} ({most.evaluations / POINTS:.1%})"
        shown = (
            f"{network}, {images:,} images | {count} | {most.error:.2%} | {most.estimate:.2%} | "
            f"{most.relative_error:.2%} | {most.accuracy_error:.1%}, {most.accuracy_estimate:.1%}"
        )
        assert f"| {shown} |" in page


def test_what_is_said_below_the_table_is_in_it():
    page, table = sentences_of("benchmarks/surfaces"), table_named("adaptive")
    assert table.error.max() <= 0.01
    counts = table.evaluations
    assert f"So 1% takes {counts.min()} to {counts.max()} of the 2,601 evaluations" in page
    assert (len(table), (counts <= 60).sum()) == (9, 1)
    assert "the goal, 60, is met by one of the nine surfaces" in page
    assert (
        f"those of the loss at up to {table.beyond.max():.1%}, those of the accuracy at up to "
        f"{table.accuracy_beyond.max():.1%} of the interpolated points"
    ) in page
