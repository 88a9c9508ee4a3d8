"""The leaderboard in docs/baselines.md has the numbers of docs/tables/baselines-*.csv, and the ranks that follow."""

import re

import numpy as np
import pytest

from analysis.plan.leaderboard import read_leaderboard
from analysis.report.leaderboard import CELL, rankings, ranks_table, words_of_gradients
from analysis.statistics.ranking import rank_methods
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
        heading = f"**Ranks over {over}** ({first['cells']} cells"
        is_tested = first["data_sets"] > 1
        if is_tested:
            heading += f" of {first['data_sets']} data sets; p = {first['p_value']:.2g}, "
            heading += f"{first['p_value_without_diverged']:.2g} without the methods that diverged; "
            heading += f"critical difference {first['critical_difference']:.2f}"
        assert f"{heading})" in page
        _, found = rows_under(page, f"Ranks over {over}")
        assert len(found) == len(rows)
        for written, row in zip(found, rows.to_dict("records"), strict=True):
            expected = [row["method"], f"{row['mean_rank']:.2f}"]
            if is_tested:
                expected += [
                    f"{row['low']:.1f} to {row['high']:.1f}",
                    "yes" if row["told_apart_from_best"] else "no",
                ]
            else:
                expected.append(f"{row['best_rank']:g} to {row['worst_rank']:g}")
            assert written == expected


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


@pytest.fixture(scope="module")
def words(page):
    return " ".join(page.split())


def test_who_is_said_to_be_told_apart_is_so_in_the_table(words, ranks):
    whole = ranks[ranks["over"] == "all"]
    apart = list(whole.loc[whole["told_apart_from_best"], "method"])
    first, second = whole["method"].iloc[:2]
    assert f"{first} and {second} have the best mean ranks" in words
    told = (
        f"only {apart[0]} is told apart from {first}"
        if len(apart) == 1
        else "no method is told apart from another"
    )
    assert told in words
    p = whole.iloc[0]
    assert (
        f"p = {p['p_value']:.2g}, and {p['p_value_without_diverged']:.2g} without the methods that diverged"
        in words
    )


def test_how_many_would_be_told_apart_with_cells_as_the_unit_is_what_the_page_says(words, cells, ranks):
    methods = list(ranks.loc[ranks["over"] == "all", "method"])
    scores = cells.set_index([*CELL, "method"])["last"].unstack("method")[methods]
    found = rank_methods(methods, scores, [str(cell) for cell in scores.index])
    count = sum(found.differs(found.order[0], place) for place in range(len(methods)))
    named = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")[count]
    assert f"{named} methods would be told apart from the best" in words


def test_shares_of_the_budget_that_the_page_names_are_those_of_the_table(words, cells):
    shares = (cells["gradients"] / cells["budget"]).groupby(cells["method"]).agg(["min", "max"])
    for method in ("AUM filter", "DivideMix", "PES"):
        low, high = shares.loc[method]
        assert f"{method} {100 * low:.0f}% to {100 * high:.0f}%" in words
    assert [f"{100 * share:.0f}%" for share in shares.loc["NCSAM"]] == ["88%", "88%"]
    assert "NCSAM, the method under study, spent 88% of its own" in words


def test_accuracies_that_the_prose_names_are_those_of_the_table(words, cells):
    ranked = cells[~cells["control"]]
    pair = ranked[(ranked["noise_kind"] == "pair") & (ranked["noise_rate"] == 0.4)]
    best = {data: rows.loc[rows["last"].idxmax()] for data, rows in pair.groupby("data")}
    found = [
        f"{best[data]['method']} {100 * best[data]['last']:.1f}%" for data in ("digits", "fashion", "words")
    ]
    assert (
        f"With 40% pair noise {found[0]} leads in digits, {found[1]} in Fashion-MNIST and {found[2]} in words"
        in words
    )
    diverged = ranked[ranked["diverged"] > 0]
    assert set(diverged["method"]) == {"CORES2"}
    assert f"CORES2 diverged in {len(diverged)} of {len(ranked[ranked['method'] == 'CORES2'])} cells" in words
    plain = cells[
        (cells["data"] == "cifar10")
        & (cells["noise_kind"] == "symmetric")
        & (cells["method"] == "cross-entropy")
    ]
    assert f"cross-entropy has {100 * plain['last'].iloc[0]:.1f}% with symmetric noise" in words


def test_the_choices_of_losses_that_the_page_names_are_those_of_the_table(words, cells):
    sln = cells.loc[cells["method"] == "SLN", "hyperparameters"]
    small = sln.str.contains("0.2").sum()
    assert f"SLN chose σ = 0.2 in {small} of {len(sln)} cells" in words
