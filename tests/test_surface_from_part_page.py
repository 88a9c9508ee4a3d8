"""What docs/benchmarks/surfaces.md says about surfaces from a part of the samples is in its table."""

from tests.doc_pages import page_named, table_named


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


def test_no_error_is_larger_than_allowed_and_few_are_larger_than_estimated():
    table = table_named("surface-from-part")
    assert (table[["error", "part_error"]] <= 1).all(axis=None)
    assert (table[["loss_beyond", "part_loss_beyond"]] <= 0.07).all(axis=None)
    assert (table.part_cost < table.cost).all()
