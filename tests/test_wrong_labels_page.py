"""Every number of docs/wrong-labels.md that was measured is that of docs/tables/wrong-labels.csv."""

import re

import pytest

from tests.doc_pages import page_named, rows_under, table_named

CASE = ["dataset", "noise_kind"]
PAGE, TABLE = page_named("wrong-labels"), table_named("wrong-labels")


def test_two_data_sets_two_kinds_and_three_seeds_are_there():
    seeds = TABLE.groupby(CASE)["seed"].nunique()
    planted = seeds[seeds.index.get_level_values("noise_kind") != "human, worst"]
    assert (planted >= 3).all()
    kinds = planted.reset_index().groupby("dataset")["noise_kind"].nunique()
    assert len(kinds) >= 2
    assert (kinds >= 2).all()


@pytest.mark.parametrize(
    ("heading", "column"), [("AUROC", "auroc"), ("Precision at the noise rate", "precision_at_rate")]
)
def test_numbers_are_means_over_the_seeds(heading, column):
    header, rows = rows_under(PAGE, heading)
    means = TABLE.groupby([*CASE, "criterion"])[column].mean()
    assert len(rows) == len(TABLE.groupby(CASE))
    for row in rows:
        dataset, kind = row[0].split(": ")
        for criterion, number in zip(header[1:], row[1:], strict=True):
            assert number == f"{means[dataset, kind, criterion.strip('`')]:.3f}", (row[0], criterion)


def test_values_lie_in_their_intervals():
    for name in ("auroc", "average_precision", "precision_at_rate"):
        assert (TABLE[f"{name}_low"] <= TABLE[name]).all()
        assert (TABLE[name] <= TABLE[f"{name}_high"]).all()


def test_samples_and_rates_are_those_of_the_table():
    for dataset, samples in re.findall(r"`([\w-]+)`[^,;.]*? \(([\d,]+) samples", PAGE):
        assert set(TABLE.loc[TABLE["dataset"] == dataset, "samples"]) == {int(samples.replace(",", ""))}
    planted = TABLE[TABLE["noise_kind"] != "human, worst"]
    assert planted["noise_rate"].between(0.195, 0.205).all()
