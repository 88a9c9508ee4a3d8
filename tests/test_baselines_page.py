"""The leaderboard in docs/baselines.md has the numbers of docs/tables/baselines-*.csv, and the ranks that follow."""

import re

import numpy as np
import pytest

from analysis.plan.leaderboard import read_leaderboard
from analysis.report.leaderboard import CELL, rankings, ranks_table, words_of_gradients
from landscape.results.wording import percent
from tests.doc_pages import page_named, rows_under, table_named


@pytest.fixture(scope="module")
def cells():
    return table_named("baselines-cells")


@pytest.fixture(scope="module")
def ranks():
    return table_named("baselines-ranks")


@pytest.fixture(scope="module")
def page():
    return page_named("baselines")


def test_ranks_on_the_page_are_those_of_the_table(page, ranks):
    for over, rows in ranks.groupby("over", sort=False):
        first = rows.iloc[0]
        heading = f"**Ranks over {over}** ({first['cells']} cells; Friedman p = {first['friedman_p']:.2g}, "
        heading += f"{first['friedman_p_without_diverged']:.2g} without the methods that diverged; "
        assert f"{heading}critical difference {first['critical_difference']:.2f})" in page
        _, found = rows_under(page, f"Ranks over {over}")
        assert len(found) == len(rows)
        for written, row in zip(found, rows.to_dict("records"), strict=True):
            interval = f"{row['low']:.1f} to {row['high']:.1f}"
            apart = "yes" if row["told_apart_from_best"] else "no"
            assert written == [row["method"], f"{row['mean_rank']:.2f}", interval, apart]


def test_ranks_are_those_of_the_committed_cells(cells, ranks):
    again = ranks_table(rankings(cells))
    assert list(again["method"]) == list(ranks["method"])
    for name in set(again) - {"over", "method"}:
        np.testing.assert_allclose(again[name], ranks[name], rtol=1e-3)


def test_accuracies_on_the_page_are_those_of_the_table(page, cells):
    for data, of_data in cells.groupby("data", sort=False):
        header, found = rows_under(page, data)
        columns = of_data[CELL].drop_duplicates()
        assert header[1:-1] == [f"{r.noise_kind} {percent(r.noise_rate)}" for r in columns.itertuples()]
        assert len(found) == of_data["method"].nunique()
        for title, *written, spent in found:
            own = of_data[of_data["method"] == title.removesuffix(" (control)")]
            assert title.endswith("(control)") == own["control"].iloc[0]
            expected = [
                f"diverged ({row.diverged} of {row.seeds})"
                if row.diverged
                else f"{100 * row.last:.1f} / {100 * row.best:.1f}"
                for row in own.itertuples()
            ]
            assert [cell for cell in written if cell] == expected
            assert spent == words_of_gradients(own)


def test_every_method_of_the_leaderboard_is_there_and_keeps_to_its_budget(pytestconfig, cells):
    board = read_leaderboard(pytestconfig.rootpath / "studies/baselines.toml")
    for data in cells["data"].unique():
        wanted = {method.title for method in board.methods if data not in method.without}
        assert set(cells.loc[cells["data"] == data, "method"]) == wanted
    assert (cells["gradients"] <= 1.25 * cells["budget"]).all()


def test_published_numbers_are_not_said_to_be_ours(page):
    (table,) = re.findall(r"^\| method \| published.*\n\|[-|]+\n((?:\|.*\n)+)", page, flags=re.M)
    for line in table.splitlines():
        _, method, published, setting, _ = (part.strip() for part in line.split("|"))
        assert method
        assert published
        assert setting


def test_what_the_page_says_of_the_ranks_follows_from_the_tables(page, cells, ranks):
    whole = ranks[ranks["over"] == "all"]
    apart = list(whole.loc[whole["told_apart_from_best"], "method"])
    assert apart == ["cross-entropy", "SLN", "CORES2"]
    assert whole["method"].iloc[0] == "ELR"
    words = " ".join(page.split())
    assert "ELR is told apart only from cross-entropy, SLN and CORES2" in words
    without = [
        rankings(cells[~cells["method"].isin(left_out)])[0].ranking.p_value
        for left_out in (["CORES2", "SLN"], ["CORES2", "SLN", "ELR"])
    ]
    assert f"without CORES2 and SLN {without[0]:.1g}, and without ELR too {without[1]:.2f}" in words
    shares = (cells["gradients"] / cells["budget"]).groupby(cells["method"]).agg(["min", "max"])
    for method in ("AUM filter", "DivideMix", "PES"):
        low, high = shares.loc[method]
        assert f"{method} {100 * low:.0f}% to {100 * high:.0f}%" in words
    assert [f"{100 * share:.0f}%" for share in shares.loc["NCSAM"]] == ["88%", "88%"]
    assert "NCSAM, the method under study, spent 88% of its own" in words
    pair = cells[(cells["noise_kind"] == "pair") & (cells["noise_rate"] == 0.4) & ~cells["control"]]
    assert pair.loc[pair["last"].idxmax(), "method"] == "DivideMix"
