"""What docs/any-batch.md says about memory is in its tables."""

from tests.doc_pages import sentences_of, table_named


def test_the_page_says_what_the_tables_say():
    page = sentences_of("any-batch")
    stream, memory = (table_named(name).set_index("measured") for name in ("stream", "memory"))
    assert stream["batches_more"].max() < 2
    batches = stream["batches_more"].map("{:.1f}".format)
    assert (
        f"took {batches['gradient']} batches more memory for a gradient and {batches['loss']} for a loss"
        in page
    )
    assert f"took {batches['product']} for a product and {batches['trace, 2 probes']} for a trace" in page
    assert set(stream.loc[["gradient", "loss"], "gigabytes"]) == {20.0}
    sizes = memory["model_sizes"]
    assert f"{sizes['two directions']} for two directions" in page
    assert (
        f"{sizes['one eigenvalue']} for the largest eigenvalue, in {memory.loc['one eigenvalue', 'seconds']} s"
        in page
    )
    assert f"{sizes['sharpness']} for the sharpness, in {memory.loc['sharpness', 'seconds']} s" in page
    assert f"{sizes['a step of SAM']} for a step of SAM" in page
