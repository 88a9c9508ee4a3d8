"""What docs/benchmarks/surfaces.md says about surfaces from a part of the samples is in its table."""

from tests.doc_pages import page_named, sentences_of, table_named


def test_the_page_says_what_the_table_says():
    page = page_named("benchmarks/surfaces")
    for (network, labels), rows in table_named("surface-from-part").groupby(["network", "labels"]):
        assert (rows.part_cost == (rows.on_all + rows.on_part / 8).round()).all()
        costs, part_costs = (", ".join(map(str, rows[column])) for column in ("cost", "part_cost"))
        beyond = f"{rows.loss_beyond.max():.1%}, {rows.part_loss_beyond.max():.1%}"
        differences = f"{rows.difference.min():.1%} to {rows.difference.max():.1%}"
        shown = (
            f"{network}, {labels} | {differences} | {costs} | {part_costs} | "
            f"{rows.error.max():.2f}, {rows.part_error.max():.2f} | {beyond} | "
            f"{rows.seconds.median():.1f} s, {rows.part_seconds.median():.1f} s"
        )
        assert f"| {shown} |" in page


def test_the_costs_that_are_named_below_the_table_are_in_it():
    table = table_named("surface-from-part").set_index("network")
    costs, of_resnet = table.part_cost, table.part_cost.loc["ResNet-8"]
    met = costs <= 60
    assert met.drop("ResNet-8").all()
    said = (
        f"{met.sum()} of {len(met)} surfaces keep within the goal, a cost of 60: all of the MLP and of the CNN, and "
        f"{met.loc['ResNet-8'].sum()} of {len(of_resnet)} of the ResNet, whose kinks the part has in other places; its "
        f"median is {of_resnet.median():.0f}, its largest {of_resnet.max()}."
    )
    assert said in sentences_of("benchmarks/surfaces")


def test_the_errors_that_are_named_below_the_table_are_in_it():
    page, table = sentences_of("benchmarks/surfaces"), table_named("surface-from-part")
    assert table[["error", "part_error"]].max(axis=None) <= 1
    assert (
        "Errors keep the tolerance here. They exceed their estimates at up to "
        f"{table.part_loss_beyond.max():.1%} of the points with a part, and at up to "
        f"{table.loss_beyond.max():.1%} without."
    ) in page
    most = table[["accuracy_beyond", "part_accuracy_beyond"]].max()
    assert most.nunique() == 1
    times = (table.part_accuracy_error / table.accuracy_error).max()
    assert (
        f"its mean error is up to {times:.1f} times that without a part, and it exceeds its estimate at "
        f"up to {most.max():.1%} of the points, with a part and without"
    ) in page
