"""`ncsam detect`: a table of suspicious labels from the command line."""

import csv

import numpy as np
import pytest
from sklearn.datasets import load_digits

from analysis import cli

FAST = ("--epochs", "4", "--model", "mlp")


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """Digits in a file of one's own, with 60 labels that an annotator got wrong; the path, and which are wrong."""
    digits = load_digits()
    pixels, labels = (digits.images[:900] * 15).astype(np.uint8), digits.target[:900]
    observed = labels[:700].copy()
    observed[:60] = (observed[:60] + 3) % 10
    path = tmp_path_factory.mktemp("own") / "digits.npz"
    arrays = {
        "x_train": pixels[:700],
        "y_train": labels[:700],
        "x_test": pixels[700:],
        "y_test": labels[700:],
    }
    np.savez(path, **arrays, observed=observed)
    np.savez(path.with_name("unknown.npz"), **{**arrays, "y_train": observed})
    np.savetxt(path.with_name("observed.csv"), observed, fmt="%d")
    return path


def test_labels_of_annotators_are_searched_and_compared_with_the_truth(npz, tmp_path, capsys):
    out = tmp_path / "new" / "table.csv"
    assert cli.main(["detect", str(npz), *FAST, "--folds", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "60 of 700 labels are wrong" in said
    assert "confident-joint" in said
    rows = rows_of(out)
    assert len(rows) == 700
    assert np.mean([int(row["id"]) < 60 for row in rows[:30]]) > 0.8
    names = sorted(path.name for path in out.parent.iterdir())
    assert names == ["table.csv", "table.losses.png", "table.suspects.png"]


def test_a_file_of_labels_beside_the_data(npz, tmp_path, capsys):
    out = tmp_path / "table.csv"
    labels = str(npz.with_name("observed.csv"))
    assert (
        cli.main(["detect", str(npz.with_name("unknown.npz")), *FAST, "--labels", labels, "--out", str(out)])
        == 0
    )
    # these are the labels of the file themselves
    assert "0 of 700 labels are wrong" in capsys.readouterr().out


def test_where_no_truth_is_known_none_is_claimed(npz, tmp_path, capsys):
    out = tmp_path / "table.csv"
    assert cli.main(["detect", str(npz.with_name("unknown.npz")), *FAST, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "are wrong" not in said
    assert "the most suspicious labels by small-loss" in said
    assert np.mean([int(row["id"]) < 60 for row in rows_of(out)[:30]]) > 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.suspects.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], "data: 'digit' is no data set and no .npz file; did you mean 'digits'?"),
        (["missing.npz"], "data: missing.npz does not exist"),
        (["digits", "--noise", "symmetric"], "--noise, --rate: give both or neither"),
        (["digits", "--folds", "1"], "--folds: must be 0 for none, or at least 2"),
        (["digits", "--epochs", "0"], "--epochs: must be at least 1"),
        (["digits", "--learning-rate", "-1"], "--learning-rate: must be positive"),
        (["digits", "--learning-rate", "1e30", *FAST], "--learning-rate: the training diverged"),
        (["digits", "--model", "perceptron"], "model: unknown name 'perceptron'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["detect", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
