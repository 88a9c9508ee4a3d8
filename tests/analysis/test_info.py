"""`ncsam info` says what a folder, an index and a run file hold; tables show what was tuned, and only that."""

import re
import shutil

import pandas as pd
import pytest

from analysis import cli, store
from analysis.plan.run_config import RunMethod
from analysis.report.numbers import chosen
from tests.analysis.tiny_study import TINY, finished_tiny

TUNED = TINY.replace(
    '[[methods]]\nname = "plain"\nlabel = "SGD"',
    '[[methods]]\nname = "gsam"\nlabel = "GSAM"\nrho = 0.1\nalpha = [0.2, 0.4]\n'
    '[[methods]]\nname = "gsam"\nlabel = "GSAM, wide"\nlike = "GSAM"\nrho = 0.2\n'
    '[[methods]]\nname = "plain"\nlabel = "GCE"\nloss = "gce"',
).replace("seeds = [0, 1]", "seeds = [0]")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return finished_tiny(tmp_path_factory.mktemp("info"), TUNED)


def printed(path, capsys, *parts):
    assert cli.main(["info", str(path), *parts]) == 0
    return capsys.readouterr().out


def test_a_folder_is_told_in_a_few_lines(out, capsys):
    text = printed(out, capsys)
    for words in ("study tiny", "digits", "40%", "GSAM; GSAM, wide; GCE", "runs: 3 of 3 finished"):
        assert words in text
    assert len(text.splitlines()) < 10


def test_what_a_folder_lacks_is_told(out, tmp_path, capsys):
    """Broken files, and files of other settings, were said to be finished runs."""
    shutil.copytree(out, tmp_path / "out")
    first, second, _ = store.run_files(tmp_path / "out")
    shutil.copy(first, second)
    first.write_bytes(first.read_bytes()[:1000])
    text = " ".join(printed(tmp_path / "out", capsys).split())
    assert "runs: 1 of 3 finished" in text
    assert "missing: 2 of 3 runs" in text


def test_a_folder_before_its_first_run_is_told(out, tmp_path, capsys):
    shutil.copy(out / "study.toml", tmp_path)
    text = printed(tmp_path, capsys)
    assert "runs: 0 of 3 finished" in text
    assert "not done yet" in text


def test_an_index_lists_its_columns_with_type_unit_and_range(out, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = {line.split()[0]: line for line in printed(out / "study.h5", capsys).splitlines() if line}
    assert {str(name) for name in store.read_table(out).columns} <= lines.keys()
    assert lines["sharpness_observed"].split()[1:3] == ["float64", "nat"]
    # one method trains with a loss that is no log-likelihood
    assert "nat" not in lines["train_loss"]
    assert lines["seed"].split()[1:] == ["int64", "0"]


def test_an_index_lists_the_columns_that_are_asked_for(out, capsys):
    lines = printed(out / "study.h5", capsys, "sharpness", "accuracy").splitlines()[2:]
    assert {line.split()[0] for line in lines} >= {"sharpness_observed", "test_accuracy"}
    assert all("sharpness" in line or "accuracy" in line for line in lines)


def test_a_run_file_is_told_in_one_screen_that_names_the_defaults(out, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(store.run_files(out)[0], capsys)
    assert len(text.splitlines()) <= 45
    words = " ".join(text.split())
    assert "method: GSAM: gsam" in words
    assert re.search(r"training: epochs 3\b.*; defaults: optimizer sgd, .* schedule cosine", words)
    assert "test_accuracy 0." in words
    assert re.search(r"[0-9]+ more groups", words)
    assert "sharpness: clean, observed" in words


def test_a_run_file_lists_all_settings_and_marks_the_defaults(out, capsys):
    text = printed(store.run_files(out)[0], capsys, "settings")
    assert "\n  training.epochs: 3\n" in text
    assert '\n  training.optimizer: "sgd" (default)\n' in text
    assert '\n  training.schedule.name: "cosine" (default)\n' in text


def test_a_run_file_lists_a_group_with_units(out, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = printed(store.run_files(out)[0], capsys, "sharpness").splitlines()
    assert {"/sharpness/clean", "/sharpness/observed"} == {
        line for line in lines if line.startswith("/sharpness/")
    }
    of_group = lines[lines.index("/sharpness/observed") + 1 :]
    line = next(line for line in of_group if line.strip().startswith("value "))
    assert line.strip().startswith("value (nat): largest rise of the mean loss found")
    assert max(map(len, of_group)) <= 80


def test_a_run_file_tells_its_results_or_one_of_them(out, capsys):
    (path, *_) = store.run_files(out)
    accuracy = store.scalars(path)["test_accuracy"]
    assert f"  test_accuracy: {accuracy:.6g}\n" in printed(path, capsys, "results")
    assert printed(path, capsys, "test_accuracy").splitlines()[1:] == [f"  test_accuracy: {accuracy:.6g}"]


def test_a_part_that_is_not_there_is_refused_with_the_nearest(out, capsys):
    assert cli.main(["info", str(store.run_files(out)[0]), "sharpnes"]) == 2
    assert "did you mean 'sharpness'?" in capsys.readouterr().err
    assert cli.main(["info", str(out), "sharpness"]) == 2
    assert "part: 'sharpness' is for a file" in capsys.readouterr().err
    assert cli.main(["info", str(out / "study.h5"), "nothing"]) == 2
    assert "part: no column of" in capsys.readouterr().err


def test_what_is_not_there_or_no_study_is_refused(tmp_path, capsys):
    assert cli.main(["info", str(tmp_path)]) == 2
    assert "holds no study.toml" in capsys.readouterr().err
    assert cli.main(["info", str(tmp_path / "none.h5")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_tables_show_what_was_tuned_and_only_that(out):
    table = store.read_table(out)
    words = {method: chosen(runs) for method, runs in table.groupby("method")}
    # fixed rho is not shown, tuned alpha is; a method that is like another one shows what was taken over
    assert words["GSAM"] in ("alpha 0.2", "alpha 0.4")
    assert words["GSAM, wide"] == words["GSAM"]
    assert words["GCE"] == ""


@pytest.mark.parametrize(
    ("candidates", "tuned"),
    [
        ([{}], []),
        ([{"rho": 0.1, "sigma": 1.0}], []),
        ([{"rho": 0.1, "sigma": 1.0}, {"rho": 0.1, "sigma": 2.0}], ["sigma"]),
        ([{"adaptive": "filter", "rho": 1}, {"adaptive": "none", "rho": 2}], ["adaptive", "rho"]),
    ],
)
def test_tuned_is_where_the_candidates_differ(candidates, tuned):
    method = RunMethod(label="m", name="sam", like=None, candidates=candidates)
    assert method.tuned == tuned


def test_words_and_whole_numbers_are_shown_as_they_are():
    run = {
        "hyperparameters": '{"forget_rate": 0.25, "kind": "filter", "steps": 3}',
        "tuned": '["kind", "steps"]',
    }
    assert chosen(pd.DataFrame([run])) == "kind filter steps 3"
