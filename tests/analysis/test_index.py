"""study.h5 is believed only as it was written; otherwise it is made anew from the run files."""

import json
import os
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

from analysis import cli, store
from analysis.store.table import read_index
from ncsam.seal import sealed
from tests.analysis.test_trust import FIRST, flip
from tests.analysis.tiny_study import run_tiny


@pytest.fixture
def out(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def whole(undisturbed):
    """The index as the study wrote it."""
    return read_index(undisturbed)


def rewritten(change):
    """A change of the open index, sealed anew."""

    def damage(path):
        with h5py.File(path, "a") as file:
            change(file)
        path.write_bytes(sealed(path.read_bytes()))

    return damage


def replaced(name, **options):
    def change(file):
        del file["table"][name]
        if options:
            file["table"].create_dataset(name, **options)

    return rewritten(change)


def ordered(order):
    return rewritten(lambda file: file["table"].attrs.__setitem__("order", order))


def as_link(path):
    path.rename(path.with_name("elsewhere.h5"))
    path.symlink_to("elsewhere.h5")


def as_fifo(path):
    path.unlink()
    os.mkfifo(path)


def words(name, word):
    return replaced(name, data=[word, word], dtype=h5py.string_dtype())


DAMAGES = {
    "a bit": lambda path: flip(path, path.stat().st_size // 2),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "no HDF5": lambda path: path.write_bytes(b"broken"),
    "without a seal": lambda path: path.write_bytes(path.read_bytes()[:-72]),
    "a missing column": replaced("test_accuracy"),
    "a column of words": replaced("test_accuracy", data=["x", "y"], dtype=h5py.string_dtype()),
    "a column of another length": replaced("test_accuracy", data=np.zeros(3)),
    "a column in two dimensions": replaced("test_accuracy", data=np.zeros((2, 2))),
    "a column in another file": replaced(
        "test_accuracy", shape=(2,), dtype="f8", external=[("/etc/passwd", 0, 16)]
    ),
    "a column of 728 TiB": replaced("test_accuracy", shape=(10**14,), dtype="f8", chunks=(1024,)),
    "a linked column": rewritten(
        lambda file: file["table"].__setitem__("more", h5py.ExternalLink("x.h5", "/"))
    ),
    "an order that is no list": ordered("3"),
    "an order of what is not there": ordered(json.dumps(["nothing"])),
    "an order that nests deeply": ordered("[" * 10_000),
    "hyper-parameters that are no JSON": words("hyperparameters", "x"),
    "hyper-parameters that nest deeply": words("hyperparameters", "[" * 10_000),
    "hyper-parameters without names": words("hyperparameters", "[1]"),
    "a list for a hyper-parameter": words("hyperparameters", '{"rho": [1]}'),
    "tuned hyper-parameters that are none": words("tuned", '["rho"]'),
    "no list of tuned hyper-parameters": words("tuned", "1"),
    "changed settings that are no list": words("changed", "1"),
    "columns that were computed in another way": rewritten(
        lambda file: file.attrs.__setitem__("definitions", "of an earlier version")
    ),
    "columns of which nothing says how": rewritten(lambda file: file.attrs.__delitem__("definitions")),
    "no fingerprint": rewritten(lambda file: file.attrs.__delitem__("fingerprint")),
    "a run outside of the folder": rewritten(lambda file: file["runs"].__setitem__(0, "../../secret.h5")),
    "a link to another file": as_link,
    "a FIFO": as_fifo,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_suspect_index_is_made_anew_from_the_run_files(out, whole, damage):
    DAMAGES[damage](out / "study.h5")
    pd.testing.assert_frame_equal(store.read_table(out), whole.table)
    assert not (out / "study.h5").is_symlink()
    # and is whole from now on
    written = (out / "study.h5").stat().st_mtime_ns
    again = read_index(out)
    assert (out / "study.h5").stat().st_mtime_ns == written
    pd.testing.assert_frame_equal(again.table, whole.table)
    assert again.fingerprint == whole.fingerprint


SECOND = FIRST.replace("seed0", "seed1")


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda path: path.unlink(), [SECOND]),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), [SECOND]),
        (lambda path: flip(path, 5000), [SECOND]),
        (lambda path: shutil.copy(path, path.with_name("seed7.h5")), [FIRST, SECOND]),
    ],
    ids=["deleted", "cut short", "a bit of its middle", "a file that no run has"],
)
def test_run_files_that_changed_since_are_indexed_again(out, change, left):
    change(out / FIRST)
    assert read_index(out).runs == left
    # and once only
    written = (out / "study.h5").stat().st_mtime_ns
    assert read_index(out).runs == left
    assert (out / "study.h5").stat().st_mtime_ns == written


def test_a_run_that_was_finished_after_the_index_is_in_the_table(out, undisturbed):
    kept = (out / FIRST).read_bytes()
    (out / FIRST).unlink()
    assert read_index(out).runs == [SECOND]
    (out / FIRST).write_bytes(kept)
    pd.testing.assert_frame_equal(store.read_table(out), store.read_table(undisturbed))


def test_an_index_of_run_files_that_are_gone_is_refused(out, capsys):
    shutil.rmtree(out / "runs")
    assert cli.main(["results", str(out)]) == 2
    assert "was made of other run files than there are now" in capsys.readouterr().err


def test_equal_settings_with_other_results_have_another_fingerprint(out, undisturbed):
    with store.run_file_changed(out / FIRST) as file:
        file["history/train_loss"][-1] += 0.1
    DAMAGES["a bit"](out / "study.h5")
    assert store.fingerprint(out) != store.fingerprint(undisturbed)


def test_an_index_is_made_anew_without_runs_that_are_broken_or_of_other_settings(out):
    DAMAGES["a bit"](out / "study.h5")
    flip(out / FIRST, 5000)
    assert read_index(out).runs == [FIRST.replace("seed0", "seed1")]


def test_an_index_that_cannot_be_made_anew_is_named(out, capsys):
    DAMAGES["a bit"](out / "study.h5")
    shutil.rmtree(out / "runs")
    assert cli.main(["claims", str(out)]) == 2
    error = capsys.readouterr().err
    assert "study.h5 does not have its checksum" in error
    assert "there is no whole run file; run 'ncsam study' again" in error
    (out / "study.toml").write_text("name = 1")
    assert cli.main(["claims", str(out)]) == 2
    assert "it cannot be made anew, as" in capsys.readouterr().err


def changed(file, name, **options):
    """A data set takes the place of another, with the same attributes."""
    attributes = {key: value for key, value in file[name].attrs.items() if key != "DIMENSION_LIST"}
    del file[name]
    file.create_dataset(name, **options).attrs.update(attributes)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file["history"].create_dataset(
            "probe_x", data=["a", "b", "c"], dtype=h5py.string_dtype()
        ),
        lambda file: file["history"].create_dataset("probe_x", data=np.zeros(5)),
        lambda file: file["config"].attrs.__setitem__("epochs", 4),
        lambda file: file["config"].attrs.__setitem__("hyperparameters", "[1]"),
        lambda file: file["history"].create_group("probe_x"),
        lambda file: file["config"].attrs.__setitem__("config", "{}"),
        lambda file: changed(file, "curvature/observed/top_eigenvalues/values", data=np.zeros((1, 1))),
        lambda file: changed(file, "curvature/observed/trace/low", data="low", dtype=h5py.string_dtype()),
        lambda file: changed(file, "sharpness/clean/steps", data=np.zeros(2)),
        lambda file: file["labels/clean"].__setitem__(0, 10**6),
        lambda file: file["labels/observed"].__setitem__(0, -1),
        lambda file: file["labels/transition"].__setitem__((0, 0), np.nan),
        lambda file: file["weights"].create_group("more"),
        lambda file: file["measured_samples/train"].__setitem__(0, 10**6),
        *(
            lambda file, value=value: file["config"].attrs.__setitem__("schema_version", value)
            for value in ("abc", float("nan"), float("inf"), [1, 2])
        ),
    ],
)
def test_a_run_file_whose_content_is_of_another_kind_is_broken_and_named(undisturbed, tmp_path, change):
    path = tmp_path / "run.h5"
    shutil.copy(undisturbed / FIRST, path)
    rewritten(change)(path)
    with pytest.raises(store.BrokenFileError, match=r"file: .*run\.h5 (does not hold|is not to be trusted)"):
        store.read_record(path)


def test_a_fault_in_the_code_that_reads_a_file_is_not_one_of_the_file(out, tmp_path, monkeypatch):
    def fault(*_):
        raise KeyError("of the code")

    monkeypatch.setattr("analysis.store.row.weight_columns", fault)
    with pytest.raises(KeyError, match="of the code"):
        run_tiny(tmp_path, out)
    with pytest.raises(KeyError, match="of the code"), store.opened(out / FIRST):
        fault()
    monkeypatch.undo()
    assert "2 of 2 runs are there" in run_tiny(tmp_path, out)[1]


def test_without_an_index_the_runs_that_are_there_are_judged(out, capsys):
    """A study that was stopped before its end has run files and no index."""
    whole = read_index(out).table
    (out / "study.h5").unlink()
    sorted(out.glob("runs/**/*.h5"))[1].unlink()
    assert cli.main(["results", str(out)]) == 0
    assert cli.main(["claims", str(out)]) == 0
    assert "1 of 2 runs" in " ".join(capsys.readouterr().out.split())
    assert len(store.read_table(out)) == 1 == len(whole) - 1


def test_a_study_without_any_finished_run_says_so(out, capsys):
    (out / "study.h5").unlink()
    shutil.rmtree(out / "runs")
    assert cli.main(["results", str(out)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "holds no study.h5; it cannot be made anew, as there is no whole run file; run 'ncsam study' again"
        in said
    )
