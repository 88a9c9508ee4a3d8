"""Leaderboards: their file, their ranks, and the command that runs them."""

import numpy as np
import pandas as pd
import pytest

import figures
from analysis.cli import main
from analysis.plan import StudyError
from analysis.plan.leaderboard import read_leaderboard, studies_of
from analysis.report.leaderboard import cells_table, markdown, rankings, ranks_table
from tests.analysis.small_study import STUDIES

BOARD = (STUDIES / "leaderboard.toml").read_text()


@pytest.fixture
def written(tmp_path):
    def write(text=BOARD):
        path = tmp_path / "tiny.toml"
        path.write_text(text)
        return path

    return write


def test_every_method_gets_the_epochs_that_the_budget_pays_for(written):
    ((folder, data, study),) = studies_of(
        read_leaderboard(written(BOARD.replace('without = ["digits"]', "")))
    )
    assert (folder, data.title, study.measured) == ("digits-symmetric", "digits", False)
    epochs = {method.title: method.epochs or study.training.epochs for method in study.methods}
    assert epochs == {"SGD": 4, "SAM": 2, "DivideMix": 1, "truth": 4, "oracle": 2}


def test_a_method_keeps_all_its_own_settings_on_every_data_set(written):
    own = "cost = 2\nmodel = { hidden = [9] }\ntraining = { weight_decay = 0.0 }"
    ((_, _, study),) = studies_of(read_leaderboard(written(BOARD.replace("cost = 2", own, 1))))
    sam = next(method for method in study.methods if method.title == "SAM")
    assert study.model_of(sam).options == {"hidden": [9]}
    assert study.training_of(sam).weight_decay == 0
    assert study.changed_by(sam) == ["model.hidden", "training.weight_decay"]


def test_a_method_is_left_out_where_it_cannot_be_trained(written):
    ((_, _, study),) = studies_of(read_leaderboard(written()))
    assert [method.title for method in study.methods] == ["SGD", "SAM", "truth", "oracle"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cost = 2", "costs = 2", "methods.1.costs: 'sam' has no such option"),
        ("train_samples", "train_sample", "data.0.train_sample: unknown key; did you mean 'train_samples'?"),
        ('without = ["digits"]', 'without = ["mnist"]', "methods.2.without: 'mnist' is none of"),
        ("rho = 0.0", "rho = -1", "methods.3.rho: "),
        ("cost = 2", "cost = 0", "methods.1.cost: "),
        ("cost = 2", "epochs = 2", "methods.1.epochs: follows from cost; leave it out"),
        ('dataset = "digits"', 'dataset = "digits"\nlabel = "digits/8x8"', "data.0.label: "),
        ('dataset = "digits"', 'dataset = "digits"\nlabel = "all"', "data.label: 'all' names the ranking"),
        (
            "rates = [0.2, 0.4] }]",
            'rates = [0.2] }, { kind = "symmetric", rates = [0.4] }]',
            "data.label: 'digits-symmetric' is there twice",
        ),
    ],
)
def test_a_mistake_is_named_in_one_line(written, old, new, message):
    with pytest.raises(StudyError) as caught:
        read_leaderboard(written(BOARD.replace(old, new, 1)))
    assert f"tiny.toml: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def runs_of(scores, data="digits", kind="symmetric"):
    """One run for each cell (rate), method and seed; scores are {method: [accuracy of each cell]}."""
    return pd.DataFrame(
        {
            "data": data,
            "noise_kind": kind,
            "noise_rate": 0.1 * (1 + place),
            "method": method,
            "seed": seed,
            "test_accuracy": value + 0.01 * seed,
            "best_test_accuracy": value + 0.1,
            "memorized": 0.2,
            "passes": 4.0,
            "budget": 4.0,
            "planned_seeds": 2,
            "diverged": not np.isfinite(value),
            "hyperparameters": "{}",
        }
        for method, values in scores.items()
        for place, value in enumerate(values)
        for seed in (0, 1)
    )


def test_ranks_are_of_the_methods_that_are_in_every_cell_and_know_no_truth(written):
    board = read_leaderboard(written())
    digits = runs_of(
        {
            "SGD": [0.5, 0.4, 0.3],
            "SAM": [0.6, np.nan, 0.4],
            "DivideMix": [0.4, 0.5, 0.2],
            "truth": [0.9, 0.9, 0.9],
        }
    )
    words = runs_of({"SGD": [0.5], "SAM": [0.6], "truth": [0.9]}, data="words")
    cells = cells_table(board, pd.concat([digits, words], ignore_index=True))
    whole, of_digits = rankings(cells)
    assert (whole.name, whole.ranking.methods, whole.left_out) == ("all", ["SGD", "SAM"], ["DivideMix"])
    # SAM diverged in one of three cells of digits; both data sets count alike
    np.testing.assert_allclose(whole.ranking.mean, [(5 / 3 + 2) / 2, (4 / 3 + 1) / 2])
    assert (of_digits.name, of_digits.left_out) == ("digits", [])
    np.testing.assert_array_equal(of_digits.ranking.mean, [2, 5 / 3, 7 / 3])
    table = ranks_table([of_digits])
    assert list(table["method"]) == ["SAM", "SGD", "DivideMix"]
    assert list(table["worst_rank"]) == [3, 2, 3]
    text = markdown(cells, [whole, of_digits])
    assert "**Ranks over all** (4 cells of 2 data sets; p = " in text
    # one data set says nothing of others
    assert "**Ranks over digits** (3 cells)\n" in text
    assert "| SAM | 1.67 | 1 to 3 |" in text
    assert "Without a rank, as they are not in every cell: DivideMix." in text
    assert "| SAM | 60.5 / 70.0 | diverged (2 of 2) | 40.5 / 50.0 | 4.0 |" in text
    assert "| truth (control) | 90.5 / 100.0 |" in text


def test_a_method_off_its_budget_is_marked_on_both_sides(written):
    runs = runs_of({"SGD": [0.5, 0.4], "SAM": [0.6, 0.5]})
    for passes, words in ((6.0, "6.0 (150% of the budget)"), (3.4, "3.4 (85% of the budget)"), (4.1, "4.1")):
        runs.loc[runs["method"] == "SAM", "passes"] = passes
        cells = cells_table(read_leaderboard(written()), runs)
        text = markdown(cells, rankings(cells))
        assert f"| {words} |" in text
        assert text.count("of the budget") == words.count("of the budget")


def test_a_cell_that_lacks_seeds_is_not_ranked_and_marked(written):
    runs = runs_of({"SGD": [0.5, 0.4, 0.3], "SAM": [0.6, 0.5, 0.2]})
    lost = (runs["method"] == "SAM") & np.isclose(runs["noise_rate"], 0.3) & (runs["seed"] == 1)
    cells = cells_table(read_leaderboard(written()), runs[~lost])
    (found,) = rankings(cells)
    assert (found.ranking.cells, found.unfinished) == (2, ["digits, symmetric 30%"])
    np.testing.assert_array_equal(found.ranking.mean, [2, 1])
    text = markdown(cells, [found])
    assert "Not ranked, as seeds are missing: digits, symmetric 30%." in text
    assert "| 20.0 / 30.0 (1 of 2 seeds) |" in text


def test_all_choices_of_a_cells_seeds_are_listed(written):
    runs = runs_of({"SGD": [0.5], "SAM": [0.6]})
    runs.loc[runs["method"] == "SAM", "hyperparameters"] = ["{'rho': 0.05}", "{'rho': 0.2}"]
    cells = cells_table(read_leaderboard(written()), runs)
    assert list(cells["hyperparameters"]) == ["{}", "{'rho': 0.05}; {'rho': 0.2}"]


def test_the_test_is_made_without_the_methods_that_diverged_too(written):
    scores = {
        "SGD": [0.5, 0.6, 0.5, 0.4, 0.5],
        "SAM": [0.6, 0.5, 0.4, 0.5, 0.6],
        "DivideMix": [np.nan] * 5,
    }
    runs = runs_of(scores)
    # each cell a data set of its own
    runs["data"] = "data " + runs["noise_rate"].round(1).astype(str)
    cells = cells_table(read_leaderboard(written()), runs)
    (found,) = rankings(cells)
    (steady,) = rankings(cells[cells["method"] != "DivideMix"])
    assert found.ranking.p_value < 0.05 < found.steady_p == steady.ranking.p_value
    assert (ranks_table([found])["p_value_without_diverged"] == found.steady_p).all()
    assert f"{found.steady_p:.2g} without the methods that diverged" in markdown(cells, [found])


def test_the_command_runs_what_is_missing_and_ranks(written, tmp_path, capsys):
    path, out = written(), tmp_path / "out"
    command = ["leaderboard", str(path), "--out", str(out), "--workers", "1", "--threads", "1"]
    assert main([*command, "--dry-run"]) == 0
    assert not out.exists()
    assert "16 to judge and 4 to choose" in capsys.readouterr().out
    assert main(command) == 0
    cells = pd.read_csv(out / "cells.csv")
    assert set(cells["method"]) == {"SGD", "SAM", "truth", "oracle"}
    # as many gradients for each; of the clean samples only, the control needs fewer
    spent = cells.groupby("method")["gradients"].mean()
    assert spent["SGD"] == spent["SAM"] == 4
    assert spent["truth"] < 4
    # a diagram of the methods that are told apart needs a second data set
    assert not list(out.glob("ranks-*.png"))
    # tables of what was there before, and nothing of what is there no more
    other = path.read_text().replace('dataset = "digits"', 'dataset = "digits"\nlabel = "other"', 1)
    more = BOARD.split("[[data]]")[1].split("[[methods]]")[0]
    path.write_text(other.replace("[[methods]]", f"[[data]]{more}[[methods]]", 1))
    (out / "ranks-gone.png").touch()
    assert main([*command, "--only", "other"]) == 0
    assert set(pd.read_csv(out / "cells.csv")["data"]) == {"digits", "other"}
    assert {file.name for file in out.glob("ranks*")} == {"ranks.csv", "ranks-all.png"}
    assert (out / "ranks-all.png").stat().st_size > 0
    path.write_text(BOARD)
    assert main(command) == 0
    assert set(pd.read_csv(out / "cells.csv")["data"]) == {"digits"}
    assert not (out / "ranks-all.png").exists()
    before = (out / "leaderboard.md").read_text()
    (run,) = (out / "digits-symmetric/runs/digits/symmetric-0.4/sgd").glob("seed1.h5")
    others = {p: p.stat().st_mtime_ns for p in out.rglob("seed*.h5") if p != run}
    run.unlink()
    assert main(command) == 0
    assert (out / "leaderboard.md").read_text() == before
    assert others == {p: p.stat().st_mtime_ns for p in out.rglob("seed*.h5") if p != run}
    assert main([*command, "--only", "mnist"]) == 2
    assert "--only: 'mnist' is none of digits" in capsys.readouterr().err


def test_the_diagram_has_the_best_method_on_top_and_refuses_sizes_that_do_not_fit():
    figure = figures.critical_difference(
        ["a", "b", "c"],
        [2.5, 1.2, 2.3],
        [[2, 3], [1, 1.5], [1.8, 2.8]],
        [[2, 0]],
        difference=1.1,
        about="4 cells",
    )
    figure.canvas.draw()
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "c", "a"]
    top, bottom = ax.get_ylim()[1], ax.get_ylim()[0]
    assert top < 0 < bottom
    with pytest.raises(ValueError, match="^mean_ranks, intervals: must be"):
        figures.critical_difference(["a"], [1.0, 2.0], [[1, 2]], [], difference=1.0)


@pytest.mark.parametrize(
    ("dataset", "model", "method", "message"),
    [
        (
            "word-languages",
            '{ name = "transformer", width = 8, depth = 1, heads = 2 }',
            "dividemix",
            "mixes inputs",
        ),
        ("digits", '{ name = "resnet", depth = 8, width = 4 }', '1-sam"\nrho = "0.1', "model: has BatchNorm"),
    ],
)
def test_a_method_that_the_data_or_the_model_do_not_suit_is_refused_before_training(
    written, tmp_path, dataset, model, method, message, capsys
):
    text = BOARD.split("[[methods]]")[0].replace('"digits"', f'"{dataset}"')
    text = text.replace('{ name = "mlp", hidden = [4] }', model).replace(
        "rates = [0.2, 0.4]", "rates = [0.2]"
    )
    methods = f'[[methods]]\nname = "plain"\n[[methods]]\nname = "{method}"\n'.replace('"0.1"', "0.1")
    assert (
        main(["leaderboard", str(written(text + methods)), "--out", str(tmp_path / "out"), "--workers", "1"])
        == 2
    )
    assert f"methods[1]{'.name' if message == 'mixes inputs' else ''}: " in (error := capsys.readouterr().err)
    assert message in error
