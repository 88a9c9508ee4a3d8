"""What happens to a study that is killed, that fails, or whose files are broken."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import analysis.engine.whole_study
import analysis.run.one_run
from analysis import store
from analysis.engine import Resources, open_engine, run_jobs, selection
from analysis.engine.measured_again import measure_study
from analysis.plan import Choice, final_runs, read_study, selection_runs
from analysis.run.context import RunContext
from analysis.run.one_run import execute, fingerprint_of_training
from tests.analysis.small_study import STUDY, assert_same_results, study, write_study
from tests.analysis.tiny_study import (
    LONG_TRAINING,
    TINY,
    UNMEASURED,
    finished_tiny,
    interrupted_in_training,
    run_tiny,
)


@pytest.mark.usefixtures("copied_workers")
def test_worker_processes_give_the_same_bits(finished, tmp_path):
    _, out = finished
    again = tmp_path / "again"
    # a quarter of the finished runs, one method after its trials
    text = STUDY.replace("seeds = [0, 1]", "seeds = [0]").replace("rates = [0.0, 0.4]", "rates = [0.4]")
    outcome, _ = run_tiny(tmp_path, again, text, engine="processes", workers=2)
    assert not outcome.failed
    assert len(store.run_files(again)) == 2
    for file in store.run_files(again):
        assert_same_results(file, out / file.relative_to(again))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return finished_tiny(folder, LONG_TRAINING)


@pytest.mark.parametrize("victim", ["parent", "worker"])
def test_a_kill_in_mid_run_and_a_resume_end_with_the_same_weights(undisturbed, tmp_path, victim):
    again = tmp_path / "killed"
    # a copy of this process, which has imported all
    process = multiprocessing.get_context("fork").Process(
        target=run_tiny, args=(tmp_path, again, LONG_TRAINING, "processes")
    )
    process.start()
    deadline = time.monotonic() + 120
    while not list(again.rglob("runs/**/*.ckpt")):
        assert time.monotonic() < deadline
        assert process.is_alive()
        time.sleep(0.01)
    workers = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and parent_of(entry) == process.pid and b"spawn_main" in command_of(entry)
    ]
    assert workers
    os.kill(process.pid if victim == "parent" else workers[0], signal.SIGKILL)
    if victim == "parent":
        process.join(timeout=120)
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run_tiny(tmp_path, again, LONG_TRAINING)
    else:
        process.join(timeout=120)
        assert process.exitcode == 0
    for file in store.run_files(undisturbed):
        assert_same_results(file, again / file.relative_to(undisturbed))


def test_ctrl_c_ends_within_seconds_and_says_how_to_go_on(tmp_path):
    path = write_study(tmp_path, TINY.replace("epochs = 3", "epochs = 2000"))
    status, printed, _ = interrupted_in_training(
        path, tmp_path / "out", "--engine", "processes", "--workers", "1"
    )
    assert status == 130
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


def test_two_studies_at_once_in_one_folder_are_refused(tmp_path, capsys):
    with store.locked(tmp_path / "out", print):
        assert study(write_study(tmp_path), tmp_path / "out") == 2
    assert "another 'ncsam study' is at work" in capsys.readouterr().err


def test_a_run_that_diverges_is_recorded_and_the_study_goes_on(tmp_path, capsys):
    text = TINY.replace("epochs = 3", "epochs = 2\nlearning_rate = 1e9")
    assert study(write_study(tmp_path, text), tmp_path / "out") == 0
    table = store.read_table(tmp_path / "out")
    assert table["diverged"].all()
    assert table["test_accuracy"].isna().all()
    assert table["top_eigenvalue_observed"].isna().all()
    assert "diverged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs = 3", "epochs = 3\nprobe_epochs = [1, 2]\nprobe_samples = 20"),
        # whichever candidate is taken diverges
        ('name = "plain"\nlabel = "SGD"', 'name = "sam"\nrho = [0.05, 0.1]'),
    ],
)
def test_a_divergence_is_recorded_where_probes_are_taken_and_where_candidates_are_tried(tmp_path, old, new):
    text = TINY.replace(old, new).replace("epochs = 3", "epochs = 3\nlearning_rate = 1e12")
    outcome, _ = run_tiny(tmp_path, tmp_path / "out", text)
    assert not outcome.failed
    assert list(outcome.table["diverged"]) == [True, True]


@pytest.mark.usefixtures("nothing_shown")
def test_a_run_that_fails_is_recorded_and_the_study_goes_on(tmp_path, capsys, monkeypatch):
    def failing(*arguments, **options):
        raise MemoryError("out of memory")

    monkeypatch.setattr(analysis.run.one_run, "measure", failing)
    out = tmp_path / "out"
    assert study(write_study(tmp_path, TINY), out) == 1
    assert "MemoryError: out of memory" in capsys.readouterr().out
    assert len(list(out.rglob("*.failed"))) == 2
    monkeypatch.undo()
    outcome, _ = run_tiny(tmp_path, out)
    assert not outcome.failed
    assert len(outcome.table) == 2
    assert not list(out.rglob("*.failed"))


def test_a_failed_trial_holds_back_the_runs_that_it_would_decide(tmp_path, monkeypatch):
    def failing(run, *arguments, **options):
        if "rho-0.1" in run.path:
            raise OSError("No space left on device")
        return execute(run, *arguments, **options)

    text = UNMEASURED + '[[methods]]\nname = "sam"\nlabel = "SAM"\nrho = [0.1, 0.3]\n'
    out = tmp_path / "out"
    monkeypatch.setattr(analysis.engine.whole_study, "execute", failing)
    outcome, _ = run_tiny(tmp_path, out, text)
    assert sum("a run of its selection failed" in error for error in outcome.failed.values()) == 2
    assert set(store.read_table(out)["method"]) == {"SGD"}
    monkeypatch.undo()
    outcome, _ = run_tiny(tmp_path, out, text)
    assert not outcome.failed
    # what is finished needs its trials no more
    shutil.rmtree(out / "selection")
    monkeypatch.setattr(analysis.engine.whole_study, "execute", failing)
    outcome, _ = run_tiny(tmp_path, out, text)
    assert outcome.failed
    assert not any(path.startswith("runs/") for path in outcome.failed)
    chosen = store.read_table(out).query("method == 'SAM'").groupby("noise_rate")["hyperparameters"]
    assert (chosen.nunique() == 1).all()


def test_a_broken_checkpoint_is_trained_anew(finished, tmp_path):
    path, out = finished
    again = tmp_path / "again"
    run = final_runs(read_study(path))[0]
    choice = Choice({}, [{}], [], [])
    started = fingerprint_of_training(run, choice, store.read_record(out / run.path).data)
    checkpoint = again / run.path.replace(".h5", f".{started[:12]}.ckpt")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("power failure")
    execute(run, choice, RunContext(again))
    assert_same_results(out / run.path, again / run.path)


def test_a_run_that_was_begun_with_another_choice_does_not_go_on_from_there(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(UNMEASURED.replace('"plain"', '"sam"\nrho = [0.1, 5.0]'))
    run = final_runs(read_study(path))[0]

    def stopped(doing, done, total):
        if done == 2:
            raise KeyboardInterrupt

    def train(root, rho, report):
        choice = Choice({"rho": rho}, run.config.method.candidates, [0.5, 0.5], [0.1, 0.1])
        execute(run, choice, RunContext(root), report=report)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "begun", 0.1, stopped)
    for root in ("begun", "undisturbed"):
        train(tmp_path / root, 5.0, lambda *_: None)
    assert_same_results(tmp_path / "begun" / run.path, tmp_path / "undisturbed" / run.path)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_runs_of_a_method_are_not_finished_with_another_choice_than_they_were_begun(tmp_path, monkeypatch):
    text = UNMEASURED.replace('"plain"', '"sam"\nrho = [0.1, 5.0]')
    out = tmp_path / "out"
    assert not run_tiny(tmp_path, out, text)[0].failed
    (chosen,) = set(store.read_table(out)["hyperparameters"])
    # the other candidate wins now, as it may where lost trials are done again on another device
    other = 0.1 if "5.0" in chosen else 5.0
    real = selection._score
    monkeypatch.setattr(
        selection,
        "_score",
        lambda trial, record: (
            float(trial.config.method.candidates == [{"rho": other}]),
            real(trial, record)[1],
        ),
    )
    with pytest.raises(store.StoreError, match="was trained with .* are chosen now; delete"):
        run_tiny(tmp_path, out, text.replace("seeds = [0, 1]", "seeds = [0, 1, 2]"))


def test_a_diverged_trial_has_no_score_whatever_its_accuracy(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace('"plain"', '"sam"\nrho = [0.1, 5.0]'))
    study = read_study(path)
    run = final_runs(study)[0]
    trials = selection_runs(study, run)
    rows = [{"diverged": True, "test_accuracy": 0.9}, {"diverged": False, "test_accuracy": 0.1}]
    records = {t.path: store.Record("", "", row, 150) for t, row in zip(trials, rows, strict=True)}
    choice = selection.choose(study, run, records)
    assert choice.hyperparameters == {"rho": 5.0}
    assert np.isnan(choice.scores[0])


def test_a_worker_that_was_started_elsewhere_writes_into_the_study_folder(tmp_path, monkeypatch):
    real = analysis.engine.whole_study.execute
    (tmp_path / "elsewhere").mkdir()

    def from_elsewhere(*arguments, **options):
        with contextlib.chdir(tmp_path / "elsewhere"):
            return real(*arguments, **options)

    monkeypatch.setattr(analysis.engine.whole_study, "execute", from_elsewhere)
    monkeypatch.chdir(tmp_path)
    run_tiny(tmp_path, Path("out"), UNMEASURED)
    assert len(list((tmp_path / "out").rglob("seed*.h5"))) == 2


OF_A_FILE = TINY.replace('"digits"', '"npz"')


@pytest.fixture(scope="module")
def study_of_a_file(tmp_path_factory):
    """A folder with `data.npz` and the results of a study of it."""
    folder = tmp_path_factory.mktemp("file")
    generator = np.random.default_rng(0)
    arrays = {f"x_{part}": generator.normal(size=(200, 5)).astype("f4") for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(200) % 3 for part in ("train", "test")}
    np.savez(folder / "data.npz", **arrays)
    assert not run_tiny(folder, folder / "out", OF_A_FILE, data_dir=folder)[0].failed
    return folder


@pytest.fixture
def of_a_file(study_of_a_file, tmp_path):
    """The folder of a finished study whose data are in `data.npz`."""
    shutil.copytree(study_of_a_file, tmp_path, dirs_exist_ok=True)
    return tmp_path / "out"


@pytest.mark.parametrize("seeds", ["[0, 1]", "[0, 1, 2]"])
def test_other_data_than_the_finished_runs_had_are_refused_whether_or_not_runs_are_left(seeds, of_a_file):
    folder = of_a_file.parent
    again = OF_A_FILE.replace("seeds = [0, 1]", f"seeds = {seeds}")
    (other := folder / "other").mkdir()
    arrays = dict(np.load(folder / "data.npz"))
    arrays["x_train"][0] = 0
    np.savez(other / "data.npz", **arrays)
    says = r"seed0\.h5 was trained on other data than there are now; .* give back the files"
    with pytest.raises(store.StoreError, match=says):
        run_tiny(folder, of_a_file, again, data_dir=other)
    with pytest.raises(store.StoreError, match=says):
        measure_study(of_a_file, resources=Resources("serial", 1, data_dir=other))
    assert not run_tiny(folder, of_a_file, again, data_dir=folder)[0].failed


def test_a_finished_study_is_shown_without_its_data_and_says_that_they_are_not_checked(of_a_file):
    (nowhere := of_a_file.parent / "nowhere").mkdir()
    outcome, printed = run_tiny(of_a_file.parent, of_a_file, OF_A_FILE, data_dir=nowhere)
    assert len(outcome.table) == 2
    assert "data.npz is missing; so it is not checked" in printed


@pytest.mark.usefixtures("copied_workers")
def test_a_worker_that_dies_while_idle_is_replaced():
    done = {}
    with open_engine(Resources("processes", 1)) as engine:
        for name in ("first", "second"):
            run_jobs(
                engine,
                [(name, write_nothing)],
                lambda _: None,
                lambda job, _, error: done.__setitem__(job, error),
            )
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
