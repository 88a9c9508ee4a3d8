"""`ncsam detect`: a table of suspicious labels from the command line."""

import csv
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_wine

from analysis import cli
from ncsam import training

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


@pytest.mark.parametrize(
    ("option", "values"), [("--noise", ["pair", "--rate", "0.2"]), ("--labels", ["observed.csv"])]
)
def test_observed_labels_in_the_data_are_not_dropped_for_others(option, values, npz, capsys, monkeypatch):
    monkeypatch.chdir(npz.parent)
    assert cli.main(["detect", str(npz), *FAST, option, *values, "--out", "table.csv"]) == 2
    assert f"{option}: the data have observed labels of their own" in capsys.readouterr().err


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


def test_wrong_labels_that_depend_on_the_pixels_are_planted_as_in_a_study(tmp_path, capsys):
    arguments = ["detect", "digits", *FAST, "--noise", "part-dependent", "--rate", "0.2"]
    assert cli.main([*arguments, "--out", str(tmp_path / "table.csv")]) == 0
    assert "288 of 1,438 labels are wrong (20.0%)" in capsys.readouterr().out


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
        (
            ["digits", "--labels-name", "worst"],
            "--labels-name: names labels of a file; give the file by --labels",
        ),
        (
            ["digits", "--noise", "pmd", "--rate", "0.2"],
            "--noise: 'pmd' needs 'posterior', which the data do not tell; take another kind, such as symmetric",
        ),
        (["digits", "--noise", "human", "--rate", "0.2"], "--noise: 'human' needs 'observed'"),
        (["digits", "--noise", "pear", "--rate", "0.2"], "--noise: unknown name 'pear'"),
        (["digits", "--noise", "asymmetric", "--rate", "0.2"], "--noise: classes_of: 'asymmetric' mistakes"),
        (["digits", "--noise", "pair", "--rate", "2"], "--rate: 2.0 is not a share of wrong labels"),
        (["digits", "--folds", "1500"], "--folds: must be at most the 1438 samples"),
        (["digits", "--out", "/"], "--out: / is a folder; name a file in it"),
        (["digits", "--out", "/dev/null/table.csv"], "--out: cannot make the folder /dev/null: "),
        (["digits", "--out", "/proc/table.csv"], "out: cannot write to /proc: "),
        (
            ["digits", "--learning-rate", "1e30", *FAST, "--folds", "2"],
            "--learning-rate: the training diverged",
        ),
        (["digits", "--folds", "1"], "--folds: must be 0 for none, or at least 2"),
        (["digits", "--epochs", "0"], "--epochs: must be at least 1"),
        (["digits", "--learning-rate", "-1"], "--learning-rate: must be positive"),
        (["digits", "--learning-rate", "1e30", *FAST], "--learning-rate: the training diverged"),
        (["digits", "--model", "perceptron"], "model: unknown name 'perceptron'"),
        (["digits", "--model", "transformer"], "name: 'transformer' takes sequences of tokens"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["detect", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (
            "cleanlab",
            ("--folds", "2"),
            "--folds: the confident joint needs cleanlab: pip install 'ncsam[detect]'",
        ),
        ("sklearn", (), "to compare with them needs scikit-learn: pip install 'ncsam[detect]'"),
    ],
)
def test_a_missing_package_is_said_before_the_training(
    npz, module, options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, module, None)
    trained = counted_epochs(monkeypatch)
    assert cli.main(["detect", str(npz), *FAST, *options, "--out", str(tmp_path / "table.csv")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert trained == []


def counted_epochs(monkeypatch, *, killed_at=None):
    """A list that grows by an epoch's training each; the process is interrupted in place of one of them."""
    trained, train_epoch = [], training.train_epoch

    def counted(*arguments, **options):
        if len(trained) == killed_at:
            raise KeyboardInterrupt
        trained.append(1)
        return train_epoch(*arguments, **options)

    monkeypatch.setattr(training, "train_epoch", counted)
    return trained


@pytest.mark.parametrize("epochs_before", [2, 9])
def test_a_search_that_was_killed_goes_on_where_it_was(npz, tmp_path, epochs_before):
    asked = ["detect", str(npz), *FAST, "--folds", "2", "--out"]
    whole, out = tmp_path / "whole.csv", tmp_path / "again" / "table.csv"
    assert cli.main([*asked, str(whole)]) == 0
    with pytest.MonkeyPatch.context() as patched:
        counted_epochs(patched, killed_at=epochs_before)
        assert cli.main([*asked, str(out)]) == 130
    assert [path.name for path in out.parent.iterdir()] == ["table.checkpoints"]
    with pytest.MonkeyPatch.context() as patched:
        # the training and two folds, of four epochs each
        left = counted_epochs(patched)
        assert cli.main([*asked, str(out)]) == 0
    assert len(left) == 12 - epochs_before
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "table.csv",
        "table.losses.png",
        "table.suspects.png",
    ]


def test_checkpoints_of_other_settings_are_refused(npz, tmp_path, capsys):
    asked = ["detect", str(npz), *FAST, "--out", str(tmp_path / "table.csv")]
    with pytest.MonkeyPatch.context() as patched:
        counted_epochs(patched, killed_at=2)
        assert cli.main(asked) == 130
    assert cli.main([*asked, "--learning-rate", "0.01"]) == 2
    assert "training.pt belongs to other settings" in " ".join(capsys.readouterr().err.split())


def test_what_another_put_beside_the_checkpoints_stays(npz, tmp_path):
    kept = tmp_path / "table.checkpoints" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    assert cli.main(["detect", str(npz), *FAST, "--out", str(tmp_path / "table.csv")]) == 0
    assert [path.name for path in kept.parent.iterdir()] == ["notes.txt"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Wine in a file of one's own: columns of different units in NumPy's own float64, 20 wrong labels of 142."""
    wine = load_wine()
    order = np.random.default_rng(0).permutation(len(wine.target))
    features, labels = wine.data[order], wine.target[order]
    observed = labels[:142].copy()
    observed[:20] = (observed[:20] + 1) % 3
    path = tmp_path_factory.mktemp("wine") / "wine.npz"
    arrays = {"x_train": features[:142], "y_train": labels[:142], "observed": observed}
    np.savez(path, x_test=features[142:], y_test=labels[142:], **arrays)
    arrays["x_train"] = features[:142].copy()
    arrays["x_train"][0, 0] = np.nan
    np.savez(path.with_name("holes.npz"), x_test=features[142:], y_test=labels[142:], **arrays)
    return path


def test_columns_of_different_units_are_searched(table, tmp_path, capsys):
    out = tmp_path / "table.csv"
    assert cli.main(["detect", str(table), "--out", str(out), "--folds", "2"]) == 0
    assert "warning" not in capsys.readouterr().out
    rows = sorted(rows_of(out), key=lambda row: int(row["area-under-margin rank"]))
    assert np.mean([int(row["id"]) < 20 for row in rows[:20]]) >= 0.8


def test_holes_in_a_table_are_named_and_not_taken_for_a_large_learning_rate(table, tmp_path, capsys):
    arguments = ["detect", str(table.with_name("holes.npz")), "--out", str(tmp_path / "table.csv")]
    assert cli.main(arguments) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "data: x_train: sample 0 holds nan (1 values of all are not finite); fill them in, or leave" in said
    )


def test_an_order_by_a_network_that_learned_nothing_is_not_given_without_a_warning(table, tmp_path, capsys):
    arguments = ["detect", str(table), "--out", str(tmp_path / "table.csv"), "--learning-rate", "1e-9"]
    assert cli.main(arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: the network agrees with" in said
    assert "it learned nothing, and the order says nothing; try more --epochs" in said
