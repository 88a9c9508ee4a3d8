"""A small study from its file to its figures."""

import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import xarray
from torch import nn

import landscape
from analysis import cli, store
from analysis.claims import CLAIMS
from analysis.cli import commands
from analysis.plan import final_runs, read_study
from analysis.plan.seeds import derived_seed
from analysis.report import figure_files as gallery
from landscape.results.files import temporary_name
from ncsam import build_model, corrupt_labels, load_dataset, predict
from tests.analysis.small_study import STUDY, contents, study, write_study
from tests.analysis.tiny_study import TINY, run_tiny
from tests.conftest import dense_hessian


def test_every_run_has_its_file_and_the_index_knows_them(finished):
    path, out = finished
    runs = final_runs(read_study(path))
    assert all(store.read_record(out / run.path).fingerprint == run.fingerprint for run in runs)
    assert not list(out.rglob("*.ckpt"))
    assert not list(out.rglob("*.tmp"))
    assert len(store.read_table(out)) == 8
    with h5py.File(out / "study.h5") as index:
        linked = index["links/runs/digits/symmetric-0.4/ncsam/seed1"]
        assert linked["config"].attrs["fingerprint"] == next(
            r.fingerprint for r in runs if r.path.endswith("symmetric-0.4/ncsam/seed1.h5")
        )


def stored_model(path):
    """(the model with the weights of a run file, the data)."""
    dataset = load_dataset("digits")
    model = build_model("mlp", dataset.input_shape, 10, seed=99, hidden=[8])
    store.load_weights(path, model)
    return model, dataset


def test_the_stored_weights_reproduce_the_stored_accuracy_and_curvature(finished):
    _, out = finished
    path = out / "runs/digits/symmetric-0.4/sgd/seed0.h5"
    model, dataset = stored_model(path)
    accuracy = (predict(model, dataset.test.inputs).argmax(1) == dataset.test.targets).double().mean().item()
    row = store.scalars(path)
    assert row["test_accuracy"] == accuracy

    with h5py.File(path) as file:
        samples = torch.from_numpy(file["measured_samples/train"][()])
        observed = torch.from_numpy(file["labels/observed"][()])
    inputs = dataset.train.inputs[samples].double()
    spectrum = torch.linalg.eigvalsh(dense_hessian(model.double(), inputs, observed[samples]))
    assert row["top_eigenvalue_observed"] == pytest.approx(spectrum[-1].item(), rel=1e-3)
    assert abs(row["trace_observed"] - spectrum.sum().item()) < 4 * row["trace_standard_error_observed"]
    # whatever lies within the ball rises at most as a lower bound says: a random point must not beat it by much
    assert row["sharpness_observed"] >= row["sharpness_one_step_observed"]


def test_labels_are_those_of_the_seed_and_the_same_for_every_method(finished):
    path, out = finished
    run = next(r for r in final_runs(read_study(path)) if "symmetric-0.4/sgd/seed1" in r.path)
    truth = corrupt_labels(
        load_dataset("digits").train.targets, rate=0.4, seed=derived_seed(run.config, "labels")
    )
    for method in ("sgd", "ncsam"):
        found = contents(out / f"runs/digits/symmetric-0.4/{method}/seed1.h5")
        np.testing.assert_array_equal(found["labels/observed"], truth.observed)
        np.testing.assert_array_equal(found["labels/clean"], truth.clean)


def test_the_choice_of_hyperparameters_is_the_best_validation_score_and_stored(finished):
    _, out = finished
    for rate in ("0", "0.4"):
        scores = []
        for rho in (0.1, 0.3):
            trial = (
                out
                / f"selection/digits/symmetric-{rate}/ncsam/rho-{rho}-strength-0.1-flip-ratio-0.4/seed1000.h5"
            )
            scores.append(store.read_history(trial)["test_accuracy"].iloc[-1])
            # a quarter of the training set is held out, and test data take no part
            assert len(contents(trial)["labels/observed"]) == pytest.approx(0.75 * 1438, abs=2)
        path = out / f"runs/digits/symmetric-{rate}/ncsam/seed0.h5"
        stored = store.read_config(path)
        assert stored.hyperparameters["rho"] == (0.1, 0.3)[int(np.argmax(scores))]
        np.testing.assert_allclose(contents(path)["config/score"], scores)


def test_history_and_surfaces_open_in_xarray(finished):
    _, out = finished
    path = out / "runs/digits/symmetric-0.4/sgd/seed0.h5"
    with xarray.open_dataset(path, group="history", engine="h5netcdf") as history:
        assert history.test_accuracy.dims == ("epoch",)
        assert history.epoch.values.tolist() == [1, 2, 3]
    with xarray.open_dataset(path, group="surface/plane-observed", engine="h5netcdf") as plane:
        assert plane.loss.dims == ("alpha", "beta")


def test_results_verdicts_and_figures_are_there(finished):
    _, out = finished
    claims = json.loads((out / "claims.json").read_text())
    assert {claim["id"] for claim in claims} == set(CLAIMS)
    names = {path.name for path in (out / "figures").iterdir()}
    for name in (
        "training_curves",
        "curvature",
        "sharpness_accuracy",
        "alignment",
        "lines_0.4_seed0",
        "contours_observed_0.4_seed0",
        "contours_test_0.4_seed0",
        "relief_observed_0.4_seed0",
    ):
        assert {f"{name}.png", f"{name}.pdf"} <= names


def test_the_table_of_a_study_is_what_its_files_say(finished):
    path, out = finished
    # the runs of the study were never read: their workers told what they had written
    told = store.read_table(out)
    read = pd.DataFrame([store.scalars(out / run.path) for run in final_runs(read_study(path))])
    pd.testing.assert_frame_equal(told, read, check_exact=True)


def test_a_second_call_trains_nothing(finished, capsys):
    path, out = finished
    before = {file: file.stat().st_mtime_ns for file in store.run_files(out)}
    assert study(path, out) == 0
    assert {file: file.stat().st_mtime_ns for file in store.run_files(out)} == before
    assert "drawn before" in capsys.readouterr().out


def test_the_stored_study_file_is_a_study_again(finished):
    path, out = finished
    assert read_study(out / "study.toml") == read_study(path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "small"', 'name = "other"', "holds the study 'small', not 'other'"),
        ('dataset = "digits"', 'dataset = "mnist-5k"', "holds results on 'digits', not 'mnist-5k'"),
        ("epochs = 3", "epochs = 4", "training.epochs: 3 there, 4 now"),
        # what a file leaves out is its default
        (
            "epochs = 3",
            'epochs = 3\nprobe_measures = ["trace"]',
            "training.probe_measures: [] there, ['trace'] now",
        ),
        # another measurement of the same runs does not help here
        (
            "seeds = [0, 1]",
            "seeds = [0, 1]\nmeasured = false",
            "(measured: True there, False now); choose another --out, or delete the folder to run it anew",
        ),
    ],
)
def test_a_folder_with_other_results_is_refused_before_any_training(
    finished, tmp_path, capsys, old, new, says
):
    _, out = finished
    path = write_study(tmp_path, STUDY.replace(old, new))
    assert study(path, out) == 2
    error = capsys.readouterr().err
    assert error.startswith("ncsam: error: out: ")
    assert says in error
    assert error.count("\n") == 1


def test_more_seeds_are_added_to_what_is_there(undisturbed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(undisturbed, copy)
    before = {file: file.stat().st_mtime_ns for file in store.run_files(copy)}
    outcome, _ = run_tiny(tmp_path, copy, TINY.replace("seeds = [0, 1]", "seeds = [0, 1, 2]"))
    assert outcome.table["seed"].tolist() == [0, 1, 2]
    assert len(store.run_files(copy)) == 3
    assert all(file.stat().st_mtime_ns == time_ for file, time_ in before.items())


def test_what_killed_writers_left_is_taken_away_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in (".study.toml.0123456789ab.tmp", ".probe.0123456789ab.tmp"):
        (out / name).touch()
    run_tiny(tmp_path, out)
    assert not list(out.rglob("*.tmp"))
    (out / "notes.tmp").write_text("mine")
    (out / "folder.tmp").mkdir()
    run_tiny(tmp_path, out)
    assert {path.name for path in out.rglob("*.tmp")} == {"notes.tmp", "folder.tmp"}


def test_what_somebody_is_writing_stays_and_what_a_dead_process_wrote_goes(undisturbed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    own = temporary_name(out / "report.html")
    dead = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{process.pid}-"))
    machine = own.name.split(".")[-2].split("-")[0]
    elsewhere, long_ago = (out / dead.name.replace(machine, digit * 8) for digit in "01")
    checkpoints = [out / f"seed0.0123.ckpt.{number}.tmp" for number in (os.getpid(), process.pid)]
    picture = dead.with_name(f"{dead.name}.gif")
    for path in (own, dead, elsewhere, long_ago, picture, *checkpoints):
        path.touch()
    os.utime(long_ago, (0, 0))
    run_tiny(tmp_path, out)
    assert set(out.rglob("*.tmp*")) == {own, elsewhere, checkpoints[0]}


def test_a_whole_number_for_the_same_decimal_one_is_named(tmp_path):
    text = TINY.replace('"plain"', '"sam"\nrho = 1')
    run_tiny(tmp_path, tmp_path / "out", text)
    with pytest.raises(
        store.StoreError, match=r"method.candidates: \[{'rho': 1}\] there, \[{'rho': 1.0}\] now"
    ):
        run_tiny(tmp_path, tmp_path / "out", text.replace("rho = 1", "rho = 1.0"))


def test_names_of_folders_are_printed_as_they_are(undisturbed, tmp_path, capsys):
    out = tmp_path / "[" / "b]"
    shutil.copytree(undisturbed, out)
    assert cli.main(["info", str(out / "runs/digits/symmetric-0.4/sgd/seed0.h5")]) == 0
    assert "/[/b]/runs" in capsys.readouterr().out.replace("\n", "")


def test_a_terminal_that_knows_ascii_alone_gets_its_results_too(undisturbed):
    command = [sys.executable, "-m", "analysis.cli", "results", str(undisturbed)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Mean ? standard deviation" in done.stdout


def test_a_closed_output_is_no_traceback(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["claims", "--list"]) == 0


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("")
    assert study(write_study(tmp_path), out) == 2
    assert "is not empty and not a study's folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["study", "missing.toml", "--out", "x"], "study: missing.toml does not exist"),
        (
            ["study", "{study}", "--out", "{tmp}/x", "--data-dir", "nowhere"],
            "--data-dir: nowhere does not exist",
        ),
        (["study", "{study}", "--out", "{tmp}/x", "--device", "tpu"], "--device: unknown 'tpu'"),
        (["study", "{study}", "--out", "{tmp}/x", "--workers", "0"], "--workers: must be at least 1"),
        (["study", "{study}", "--out", "{tmp}/x", "--threads", "100000"], "--threads: must be at most 1024"),
        (
            ["study", "{fashion}", "--out", "{tmp}/x", "--data-dir", "{tmp}"],
            "dataset 'fashion-mnist': no train-images",
        ),
        (["claims", "nowhere"], "results: nowhere holds no study.h5"),
        (["figures", "nowhere"], "results: nowhere holds no study.h5"),
        (["info", "nowhere.h5"], "file: nowhere.h5 does not exist"),
        (["info", "{study}"], "is a study file; name its folder: ncsam info"),
        (["results", "{study}"], "is a study file; name the folder with its results, the --out of"),
        (["claims", "{study}"], "is a study file; name the folder with its results, the --out of"),
        (["measure", "{study}"], "is a study file; name the folder with its results, the --out of"),
        (["measure", "{checkpoint}"], "a checkpoint of your own is measured by 'ncsam measure"),
        (["measure", "{checkpoint}"], "--model module:function"),
        (["results", "{checkpoint}"], "is a file, not a study's folder"),
        (["info", "{tmp}"], "holds no study.toml"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_status_2(tmp_path, capsys, arguments, says):
    path = write_study(tmp_path)
    fashion = tmp_path / "fashion.toml"
    fashion.write_text(STUDY.replace('"digits"', '"fashion-mnist"'))
    checkpoint = tmp_path / "ncsam.pt"
    checkpoint.write_bytes(b"weights")
    filled = [a.format(study=path, tmp=tmp_path, fashion=fashion, checkpoint=checkpoint) for a in arguments]
    assert cli.main(filled) == 2
    error = capsys.readouterr().err
    assert error.startswith("ncsam: error: ")
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.h5"))


def test_figures_and_tables_show_the_runs_of_the_study_and_no_others(finished, tmp_path, monkeypatch):
    _, out = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    assert gallery.is_current(copy)
    drawn = []
    monkeypatch.setattr(commands, "write_report", lambda *_, **__: [])
    monkeypatch.setattr(
        gallery, "draw_all", lambda root, _wanted: drawn.append((root, gallery.is_current(root)))
    )
    assert study(write_study(tmp_path, STUDY.replace("seeds = [0, 1]", "seeds = [0]")), copy) == 0
    assert set(store.read_table(copy)["seed"]) == set(store.read_histories(copy)["seed"]) == {0}
    assert drawn == [(copy, False)]


def test_info_prints_what_a_run_holds(finished, capsys):
    _, out = finished
    file = str(store.run_files(out)[0])
    assert cli.main(["info", file]) == 0
    assert "test_accuracy" in capsys.readouterr().out
    assert cli.main(["info", file, "settings"]) == 0
    assert "training.epochs: 3\n" in capsys.readouterr().out


def test_the_surface_in_the_file_is_that_of_the_stored_weights(finished):
    _, out = finished
    path = out / "runs/digits/symmetric-0.4/ncsam/seed0.h5"
    model, dataset = stored_model(path)
    found = contents(path)
    samples = torch.from_numpy(found["measured_samples/test"])
    loss = nn.functional.cross_entropy(
        predict(model, dataset.test.inputs[samples]), dataset.test.targets[samples]
    )
    plane = landscape.load(path, "surface/plane-test")
    assert plane.center_loss == pytest.approx(loss.item(), rel=1e-6)
    assert plane.loss[2, 2] == plane.center_loss
