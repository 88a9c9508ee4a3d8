"""A small study from its file to its figures, and what happens when it is disturbed."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray
from torch import nn

import landscape
from analysis import cli, gallery, store
from analysis.engine import open_engine
from analysis.run import Choice, derived_seed, execute
from analysis.study import final_runs, read_study
from ncsam import build_model, corrupt_labels, load_dataset, predict
from tests.conftest import dense_hessian

STUDY = """
name = "small"
dataset = "digits"
seeds = [0, 1]
[model]
name = "mlp"
hidden = [8]
[noise]
rates = [0.0, 0.4]
[training]
epochs = 3
[[methods]]
name = "plain"
label = "SGD"
[[methods]]
name = "ncsam"
label = "NCSAM"
rho = [0.1, 0.3]
strength = 0.1
flip_ratio = 0.4
[measure]
samples = 150
surface_rates = [0.4]
surface_seeds = [0]
surface_steps = 5
line_steps = 5
"""


def write_study(folder, text=STUDY):
    path = folder / "small.toml"
    path.write_text(text)
    return path


def study(path, out, *options):
    return cli.main(["study", str(path), "--out", str(out), "--engine", "serial", *options])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of the small study, run once in this process."""
    folder = tmp_path_factory.mktemp("study")
    path = write_study(folder)
    assert study(path, folder / "out") == 0
    return path, folder / "out"


def contents(path):
    """All numbers of a run file but times."""
    found = {}
    with h5py.File(path) as file:

        def visit(name, item):
            if isinstance(item, h5py.Dataset) and name != "history/seconds":
                found[name] = item[()]

        file.visititems(visit)
    return found


def assert_same_results(first, second):
    one, other = contents(first), contents(second)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_every_run_has_its_file_and_the_index_knows_them(finished):
    path, out = finished
    runs = final_runs(read_study(path))
    assert all(store.is_finished(out, run) for run in runs)
    assert not list(out.rglob("*.ckpt"))
    assert not list(out.rglob("*.tmp"))
    assert len(store.read_table(out)) == 8
    with h5py.File(out / "study.h5") as index:
        linked = index["links/runs/digits/symmetric-0.4/ncsam/seed1"]
        assert linked["config"].attrs["fingerprint"] == next(
            r.fingerprint for r in runs if r.path.endswith("symmetric-0.4/ncsam/seed1.h5")
        )


def test_the_stored_weights_reproduce_the_stored_accuracy_and_curvature(finished):
    _, out = finished
    path = out / "runs/digits/symmetric-0.4/sgd/seed0.h5"
    dataset = load_dataset("digits")
    model = build_model("mlp", dataset.input_shape, 10, seed=99, hidden=[8])
    store.load_weights(path, model)
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
        assert stored["hyperparameters"]["rho"] == (0.1, 0.3)[int(np.argmax(scores))]
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
    assert {claim["id"] for claim in claims} == {"L1", "L3", "M2", "M3", "G1", "G2", "G3"}
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


def test_a_second_call_trains_nothing(finished, capsys):
    path, out = finished
    before = {file: file.stat().st_mtime_ns for file in store.run_files(out)}
    assert study(path, out) == 0
    assert {file: file.stat().st_mtime_ns for file in store.run_files(out)} == before
    assert "drawn before" in capsys.readouterr().out


def test_the_stored_study_file_is_a_study_again(finished):
    path, out = finished
    assert read_study(out / "study.toml") == read_study(path)


def test_worker_processes_give_the_same_bits(finished, tmp_path):
    path, out = finished
    again = tmp_path / "again"
    assert cli.main(["study", str(path), "--out", str(again), "--engine", "processes", "--workers", "2"]) == 0
    for file in store.run_files(out):
        assert_same_results(file, again / file.relative_to(out))


@pytest.mark.parametrize("victim", ["parent", "worker"])
def test_a_kill_in_mid_run_and_a_resume_end_with_the_same_weights(finished, tmp_path, victim):
    path, out = finished
    again = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "analysis.cli",
        "study",
        str(path),
        "--out",
        str(again),
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        [*command, "--engine", "processes"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(again.rglob("runs/**/*.ckpt")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    workers = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and parent_of(entry) == process.pid and b"spawn_main" in command_of(entry)
    ]
    assert workers
    os.kill(process.pid if victim == "parent" else workers[0], signal.SIGKILL)
    if victim == "parent":
        process.wait(timeout=30)
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert study(path, again) == 0
    else:
        assert process.wait(timeout=120) == 0
    for file in store.run_files(out):
        assert_same_results(file, again / file.relative_to(out))


def test_ctrl_c_ends_within_seconds_and_says_how_to_go_on(tmp_path):
    path = write_study(tmp_path, STUDY.replace("epochs = 3", "epochs = 2000"))
    command = [sys.executable, "-m", "analysis.cli", "study", str(path), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--engine", "processes"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("*.ckpt")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the same command goes on from there" in printed


def parent_of(entry):
    try:
        return int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def command_of(entry):
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "small"', 'name = "other"', "holds the study 'small', not 'other'"),
        ('dataset = "digits"', 'dataset = "mnist-5k"', "holds results on 'digits', not 'mnist-5k'"),
        ("epochs = 3", "epochs = 4", "training.epochs: 3 there, 4 now"),
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


def test_more_seeds_are_added_to_what_is_there(finished, tmp_path):
    _, out = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    before = {file: file.stat().st_mtime_ns for file in store.run_files(copy)}
    assert study(write_study(tmp_path, STUDY.replace("seeds = [0, 1]", "seeds = [0, 1, 2]")), copy) == 0
    assert len(store.run_files(copy)) == 12
    assert all(file.stat().st_mtime_ns == time_ for file, time_ in before.items())


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("")
    assert study(write_study(tmp_path), out) == 2
    assert "is not empty and not a study's folder" in capsys.readouterr().err


def test_two_studies_at_once_in_one_folder_are_refused(tmp_path, capsys):
    with store.locked(tmp_path / "out"):
        assert study(write_study(tmp_path), tmp_path / "out") == 2
    assert "another 'ncsam study' is at work" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["study", "missing.toml", "--out", "x"], "study: missing.toml does not exist"),
        (
            ["study", "{study}", "--out", "{tmp}/x", "--data-dir", "nowhere"],
            "--data-dir: nowhere is not a folder",
        ),
        (["study", "{study}", "--out", "{tmp}/x", "--device", "tpu"], "--device: unknown 'tpu'"),
        (["study", "{study}", "--out", "{tmp}/x", "--workers", "0"], "--workers: must be at least 1"),
        (
            ["study", "{fashion}", "--out", "{tmp}/x", "--data-dir", "{tmp}"],
            "dataset 'fashion-mnist': no train-images",
        ),
        (["claims", "nowhere"], "results: nowhere holds no study.h5"),
        (["figures", "nowhere"], "results: nowhere holds no study.h5"),
        (["info", "nowhere.h5"], "file: nowhere.h5 does not exist"),
        (["info", "{study}"], "is not a whole HDF5 file"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_status_2(tmp_path, capsys, arguments, says):
    path = write_study(tmp_path)
    fashion = tmp_path / "fashion.toml"
    fashion.write_text(STUDY.replace('"digits"', '"fashion-mnist"'))
    filled = [a.format(study=path, tmp=tmp_path, fashion=fashion) for a in arguments]
    assert cli.main(filled) == 2
    error = capsys.readouterr().err
    assert error.startswith("ncsam: error: ")
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.h5"))


def test_a_run_that_diverges_is_recorded_and_the_study_goes_on(tmp_path, capsys):
    text = STUDY.replace("epochs = 3", "epochs = 2\nlearning_rate = 1e9").replace(
        "rho = [0.1, 0.3]", "rho = 0.1"
    )
    assert study(write_study(tmp_path, text), tmp_path / "out") == 0
    table = store.read_table(tmp_path / "out")
    assert table["diverged"].all()
    assert table["test_accuracy"].isna().all()
    assert table["top_eigenvalue_observed"].isna().all()
    assert "diverged" in capsys.readouterr().out


def test_a_run_that_fails_is_recorded_and_the_study_goes_on(tmp_path, capsys, monkeypatch):
    import analysis.run

    def failing(*arguments, seed, **options):
        raise MemoryError("out of memory")

    monkeypatch.setattr(analysis.run, "measure", failing)
    path = write_study(tmp_path, STUDY.replace("rho = [0.1, 0.3]", "rho = 0.1"))
    out = tmp_path / "out"
    assert study(path, out) == 1
    assert "MemoryError: out of memory" in capsys.readouterr().out
    assert len(list(out.rglob("*.failed"))) == 8
    monkeypatch.undo()
    assert study(path, out) == 0
    assert not list(out.rglob("*.failed"))


def test_a_failed_trial_holds_back_the_runs_that_it_would_decide(tmp_path, monkeypatch):
    import analysis.experiment

    def failing(run, *arguments, **options):
        if "rho-0.1" in run.path:
            raise OSError("No space left on device")
        return execute(run, *arguments, **options)

    path = write_study(tmp_path)
    out = tmp_path / "out"
    monkeypatch.setattr(analysis.experiment, "execute", failing)
    assert study(path, out) == 1
    assert set(store.read_table(out)["method"]) == {"SGD"}
    monkeypatch.undo()
    assert study(path, out) == 0
    chosen = store.read_table(out).query("method == 'NCSAM'").groupby("noise_rate")["hyperparameters"]
    assert (chosen.nunique() == 1).all()


def test_a_broken_checkpoint_is_trained_anew(finished, tmp_path):
    path, out = finished
    again = tmp_path / "again"
    run = final_runs(read_study(path))[0]
    checkpoint = again / run.path.replace(".h5", f".{run.fingerprint[:12]}.ckpt")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("power failure")
    execute(run, Choice({}, [{}], [], []), again, data_dir=None, device="cpu", report=lambda *_: None)
    assert_same_results(out / run.path, again / run.path)


def test_figures_and_tables_show_the_runs_of_the_study_and_no_others(finished, tmp_path):
    _, out = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    assert study(write_study(tmp_path, STUDY.replace("seeds = [0, 1]", "seeds = [0]")), copy) == 0
    assert set(store.read_table(copy)["seed"]) == set(store.read_histories(copy)["seed"]) == {0}
    assert gallery.is_current(copy)


def test_a_broken_index_is_named(finished, tmp_path, capsys):
    _, out = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "study.h5").write_bytes(b"broken")
    assert cli.main(["claims", str(copy)]) == 2
    assert "study.h5 is not a whole HDF5 file" in capsys.readouterr().err


def test_a_worker_that_dies_while_idle_is_replaced():
    done = {}
    with open_engine("processes", 1) as engine:
        for name in ("first", "second"):
            engine.run([(name, write_nothing)], lambda _: None, done.__setitem__)
            for child in multiprocessing.active_children():
                child.kill()
                child.join()
    assert done == {"first": None, "second": None}


def write_nothing(report):
    report("nothing", 1, 1)


def test_a_truncated_run_file_is_named(finished, tmp_path):
    _, out = finished
    whole = store.run_files(out)[0].read_bytes()
    broken = tmp_path / "broken.h5"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(store.StoreError, match=r"broken\.h5 is not a whole HDF5 file"):
        store.read_config(broken)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def failing(beside):
        beside.write_text("half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.replace_file(path, failing)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_info_prints_what_a_run_holds(finished, capsys):
    _, out = finished
    assert cli.main(["info", str(store.run_files(out)[0])]) == 0
    printed = capsys.readouterr().out
    assert "test_accuracy" in printed
    assert '"epochs": 3' in printed


def test_the_surface_in_the_file_is_that_of_the_stored_weights(finished):
    _, out = finished
    path = out / "runs/digits/symmetric-0.4/ncsam/seed0.h5"
    dataset = load_dataset("digits")
    model = build_model("mlp", dataset.input_shape, 10, seed=0, hidden=[8])
    store.load_weights(path, model)
    found = contents(path)
    samples = torch.from_numpy(found["measured_samples/test"])
    loss = nn.functional.cross_entropy(
        predict(model, dataset.test.inputs[samples]), dataset.test.targets[samples]
    )
    plane = landscape.load(path, "surface/plane-test")
    assert plane.center_loss == pytest.approx(loss.item(), rel=1e-6)
    assert plane.loss[2, 2] == plane.center_loss
