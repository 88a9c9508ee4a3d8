"""What docs/curvature.md says about traces by the help of a part is in its table."""

from tests.doc_pages import sentences_of, table_named


def test_the_page_says_what_the_table_says():
    page = sentences_of("curvature")
    rows = table_named("part-of-samples").set_index(["network", "samples", "who"])
    many, few = rows["products"].xs(16000, level="samples"), rows["products"].xs(1000, level="samples")
    for network in ("MLP 16", "CNN 4-4"):
        if network in many.index.get_level_values("network"):
            plain, part = many[network, "ours"], many[network, "ours, part 1/8"]
            assert f"the {network} on 16,000 digits took {part} products in place of {plain}" in page
    plain, part = few["MLP 16", "ours"], few["MLP 16", "ours, part 1/8"]
    assert f"On 1,000 digits the MLP 16 took {part} in place of {plain}" in page
    assert f"within {rows['error'].max():.1%} in root mean square" in page
    assert f"{len(rows)} rows" in page
