"""What docs/scale.md says is in its tables, and the plan follows from the counts."""

import pytest

from bench.sharded import plan, read
from tests.doc_pages import sentences_of, table_named


def test_the_page_says_what_the_counts_say():
    page = sentences_of("scale")
    counts = table_named("sharded").set_index("measured")
    gathered, product = counts["gathered"], counts.loc["product"]
    assert (
        f"A loss gathers the model {gathered['loss']:.1f} times, a gradient {gathered['gradient']:.1f} times, and a "
        f"product {product['gathered']:.1f} times with {product['summed']:.1f} sums" in page
    )
    assert f"no more than {counts['units_in_memory'].max():.1f} units of gathered weights" in page


def test_the_plan_follows_from_the_counts():
    assert [dict(row) for row in plan(read("sharded"))] == read("scale")


def test_a_product_of_the_largest_model_takes_the_seconds_that_the_page_says():
    largest = table_named("scale").iloc[-1]
    assert largest["weights"] == 1e10
    seconds = largest["product_traffic"] * 2**30 / (400e9 / 8)
    assert f"{largest['product_traffic']:.0f} GiB to and from each rank" in sentences_of("scale")
    assert 5 <= seconds <= 6


@pytest.mark.parametrize("measured", ["loss", "gradient", "product", "Gauss-Newton product"])
def test_no_measurement_gathers_more_than_the_table_says(objectives, measured):
    wanted = {row["measured"]: row for row in read("sharded")}[measured]
    for found in objectives:
        counted = {row["measured"]: row for row in found["traffic"]}[measured]
        for count in ("gathered", "summed", "units_in_memory"):
            assert counted[count] == pytest.approx(float(wanted[count]))
