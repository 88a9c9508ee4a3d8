"""What docs/benchmarks/surfaces.md says about surfaces from a part of the samples is in its table."""

from tests.doc_pages import page_named, sentences_of, table_named


def test_the_page_says_what_the_table_says():
    page = page_named("benchmarks/surfaces")
    for row in table_named("surface-from-part").itertuples():
        assert row.part_cost == round(row.on_all + row.on_part / 8)
        shown = (
            f"{row.network}, {row.labels} | {row.difference:.1%} | {row.cost}, {row.seconds} s | "
            f"{row.on_all}, {row.on_part} | {row.part_cost}, {row.part_seconds} s | "
            f"{row.error:.2f} | {row.part_error:.2f} | {row.loss_beyond:.1%} | {row.part_loss_beyond:.1%}"
        )
        assert f"| {shown} |" in page


def test_what_is_said_below_the_table_is_in_it():
    table = table_named("surface-from-part")
    beyond, part_beyond = table.loss_beyond.max(), table.part_loss_beyond.max()
    assert table[["error", "part_error"]].max(axis=None) <= 1
    words = (
        "Errors keep the tolerance here. They exceed their estimates at up to "
        f"{part_beyond:.1%} of the points, where those without a part do at {beyond:.1%}"
    )
    assert words in sentences_of("benchmarks/surfaces")
