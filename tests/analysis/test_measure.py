"""`ncsam measure`: stored weights are measured again, and nothing is trained."""

import io
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import analysis.engine.measured_again
import analysis.run.measured_again
from analysis import cli, store
from analysis.engine import Resources
from analysis.engine.measured_again import measure_study
from analysis.plan import final_runs, read_study
from analysis.report import figure_files
from analysis.run.measurements import MEASURES, measure
from tests.analysis.small_study import STUDIES, assert_same_results, contents
from tests.analysis.test_kills import before_the_rename
from tests.analysis.test_trust import SCHEMA_1
from tests.analysis.tiny_study import TINY, finished_tiny, killed_at, mark_and_wait, run_tiny

OTHERWISE = TINY[: TINY.index("[measure]")] + (STUDIES / "measured_otherwise.toml").read_text()
OF_ONE_SEED = TINY.replace("seeds = [0, 1]", "seeds = [0]")
SHARPER = TINY.replace("sharpness_steps = 2", "sharpness_steps = 4\nsharpness_rho = 0.1")
FILES = ["runs/digits/symmetric-0.4/sgd/seed0.h5", "runs/digits/symmetric-0.4/sgd/seed1.h5"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The tiny study, trained and measured with the other settings from the start."""
    return finished_tiny(tmp_path_factory.mktemp("fresh"), OTHERWISE)


@pytest.fixture
def out(undisturbed, tmp_path):
    """A copy of the tiny study, finished."""
    shutil.copytree(undisturbed, tmp_path / "out")
    return tmp_path / "out"


def study_of(folder, text):
    path = folder / "study.toml"
    path.write_text(text)
    return read_study(path)


def measured(out, *names, text=None, engine="serial", workers=1):
    """(what the call did, what it printed)."""
    printed = io.StringIO()
    outcome = measure_study(
        out,
        names,
        resources=Resources(engine, workers, threads=1),
        study=study_of(out.parent, text) if text else None,
        console=Console(file=printed, width=300),
    )
    return outcome, printed.getvalue()


def changed_groups(before, after):
    """Names of the data sets that are not the same to the bit in both run files."""
    one, other = contents(before), contents(after)
    return {
        name
        for name in one.keys() | other.keys()
        if name not in one or name not in other or not same(one[name], other[name])
    }


def same(one, other):
    return np.asarray(one).tobytes() == np.asarray(other).tobytes() or np.array_equal(one, other)


def measured_copy(undisturbed, folder, *names, text):
    shutil.copytree(undisturbed, folder / "out")
    outcome, _ = measured(folder / "out", *names, text=text)
    assert not outcome.failed
    return folder / "out"


@pytest.fixture(scope="module")
def otherwise(undisturbed, tmp_path_factory):
    """A copy of the tiny study, measured with the other settings."""
    return measured_copy(undisturbed, tmp_path_factory.mktemp("otherwise"), text=OTHERWISE)


@pytest.fixture(scope="module")
def sharper(undisturbed, tmp_path_factory):
    """A copy of the tiny study, in which the sharpness is measured with other settings."""
    return measured_copy(undisturbed, tmp_path_factory.mktemp("sharper"), "sharpness", text=SHARPER)


def assert_as_from_the_start(out, fresh):
    for name in FILES:
        assert_same_results(out / name, fresh / name)
        assert store.read_config(out / name) == store.read_config(fresh / name)
    measured_table, fresh_table = (
        store.read_table(folder).drop(columns="seconds") for folder in (out, fresh)
    )
    assert measured_table.equals(fresh_table)


def test_the_numbers_are_those_of_a_study_with_the_other_settings_from_the_start(otherwise, fresh):
    assert_as_from_the_start(otherwise, fresh)


@pytest.mark.usefixtures("copied_workers")
def test_worker_processes_measure_the_same_numbers(out, fresh):
    outcome, _ = measured(out, text=OTHERWISE, engine="processes")
    assert not outcome.failed
    assert_as_from_the_start(out, fresh)


def test_weights_history_and_labels_stay_as_they_are_to_the_byte(otherwise, undisturbed):
    for name in FILES:
        with h5py.File(undisturbed / name) as before, h5py.File(otherwise / name) as after:
            for group in ("weights", "history", "labels"):
                assert before[group].keys() == after[group].keys()
                for key in before[group]:
                    one, other = before[group][key], after[group][key]
                    assert one[()].tobytes() == other[()].tobytes()
                    assert one.dtype == other.dtype
                    assert one.attrs.keys() == other.attrs.keys()


def test_the_same_study_then_counts_as_finished_with_the_other_settings(otherwise, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(otherwise, out)
    before = {path: path.stat().st_mtime_ns for path in store.run_files(out)}
    _, printed = run_tiny(tmp_path, out, OTHERWISE)
    assert "2 of 2 runs are there" in printed
    assert {path: path.stat().st_mtime_ns for path in store.run_files(out)} == before


def test_only_the_groups_that_were_named_are_replaced(out, undisturbed):
    measured(out, "sharpness", text=SHARPER.replace("products = 10", "products = 20"))
    for name in FILES:
        changed = changed_groups(undisturbed / name, out / name)
        assert changed
        assert all(group.startswith("sharpness") for group in changed)
        settings = store.read_config(out / name).config.measure
        # what was not named keeps its settings, in the file as in the study
        assert (settings.sharpness_rho, settings.sharpness_steps, settings.trace_max_products) == (
            0.1,
            4,
            10,
        )
    assert read_study(out / "study.toml").measure == settings


def test_a_setting_that_others_depend_on_is_not_changed_for_one_alone(out):
    with pytest.raises(
        ValueError,
        match=r"^measure\.samples has changed, and (curvature, flatness, parts, critical, noise, samples, density, "
        r"surfaces) depend on it too: \1 would keep numbers made with the old value; add \1 to --only$",
    ):
        measured(out, "sharpness", text=OTHERWISE)


def test_what_is_measured_as_asked_is_left_alone(out):
    before = {path: path.stat().st_mtime_ns for path in store.run_files(out)}
    _, printed = measured(out)
    assert "2 of 2 runs are measured as asked" in printed
    assert {path: path.stat().st_mtime_ns for path in store.run_files(out)} == before


def test_a_later_version_of_a_measure_measures_again_once(out, undisturbed, monkeypatch):
    figure_files.draw_all(out)
    before = store.read_config(out / FILES[0]).measured_by
    later = before["sharpness"].version + 1
    monkeypatch.setitem(MEASURES, "sharpness", replace(MEASURES["sharpness"], version=later))
    outcome, printed = measured(out, "sharpness")
    assert "0 of 2 runs are measured as asked" in printed
    assert not outcome.failed
    assert store.read_config(out / FILES[0]).measured_by["sharpness"].version == later
    assert store.read_config(out / FILES[0]).measured_by["curvature"] == before["curvature"]
    assert_same_results(out / FILES[0], undisturbed / FILES[0])
    assert not figure_files.is_current(out)
    assert "2 of 2 runs are measured as asked" in measured(out, "sharpness")[1]
    # the study itself asks for no version: what is finished stays finished
    assert "2 of 2 runs are there" in run_tiny(out.parent, out)[1]


def test_a_kill_leaves_each_file_old_or_new_and_the_same_call_goes_on(out, sharper, undisturbed, tmp_path):
    mark = tmp_path / "mark"
    real = analysis.run.measured_again.measure_again

    def killed_in_the_second(run, *arguments, **options):
        if run.path == FILES[1]:
            mark_and_wait(mark)
        return real(run, *arguments, **options)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(analysis.engine.measured_again, "measure_again", killed_in_the_second)
        killed_at(mark, lambda: measured(out, "sharpness", text=SHARPER))
    assert_same_results(out / FILES[0], sharper / FILES[0])
    assert changed_groups(out / FILES[0], undisturbed / FILES[0])
    assert_same_results(out / FILES[1], undisturbed / FILES[1])
    first = (out / FILES[0]).stat().st_mtime_ns
    # the settings are in the folder by now
    _, printed = measured(out, "sharpness")
    assert "1 of 2 runs are measured as asked" in printed
    assert (out / FILES[0]).stat().st_mtime_ns == first
    assert_same_results(out / FILES[1], sharper / FILES[1])


def test_a_kill_before_the_rename_leaves_the_old_file(out, sharper, undisturbed, tmp_path):
    mark = tmp_path / "mark"
    with pytest.MonkeyPatch.context() as monkeypatch:
        before_the_rename(monkeypatch, mark)
        killed_at(mark, lambda: measured(out, "sharpness", text=SHARPER))
    assert (out / FILES[0]).read_bytes() == (undisturbed / FILES[0]).read_bytes()
    measured(out, "sharpness")
    assert not list(out.rglob("*.tmp"))
    assert_same_results(out / FILES[0], sharper / FILES[0])


@pytest.mark.usefixtures("nothing_shown")
def test_a_run_that_cannot_be_measured_is_named_and_keeps_what_it_has(out, undisturbed, monkeypatch, capsys):
    def failing(subject, names):
        if subject.config.seed == 0:
            raise MemoryError("out of memory")
        return {}

    monkeypatch.setattr(analysis.run.measured_again, "measure", failing)
    path = out.parent / "sharper.toml"
    path.write_text(SHARPER)
    assert (
        cli.main(["measure", str(out), "--study", str(path), "--only", "sharpness", "--engine", "serial"])
        == 1
    )
    assert "MemoryError: out of memory" in capsys.readouterr().out
    assert (out / FILES[0]).read_bytes() == (undisturbed / FILES[0]).read_bytes()
    monkeypatch.undo()
    assert not measured(out)[0].failed
    assert not list(out.rglob("*.failed"))


def failing_for(seed):
    real = analysis.run.measured_again.measure

    def measure(subject, names):
        if subject.config.seed == seed:
            raise MemoryError("out of memory")
        return real(subject, names)

    return measure


def test_after_a_failure_no_row_holds_numbers_of_the_old_settings(out, monkeypatch):
    monkeypatch.setattr(analysis.run.measured_again, "measure", failing_for(0))
    outcome, _ = measured(out, "sharpness", text=SHARPER)
    assert list(outcome.failed) == [FILES[0]]
    table = store.read_table(out)
    assert table[["seed", "sharpness_rho_observed"]].to_numpy().tolist() == [[1, 0.1]]
    (out / "study.h5").write_bytes(b"broken")
    pd.testing.assert_frame_equal(store.read_table(out), table)
    monkeypatch.undo()
    measured(out)
    assert store.read_table(out)["sharpness_rho_observed"].tolist() == [0.1, 0.1]


def test_a_later_version_that_fails_leaves_no_row_of_the_earlier_one(out, monkeypatch):
    later = replace(MEASURES["sharpness"], version=MEASURES["sharpness"].version + 1)
    monkeypatch.setitem(MEASURES, "sharpness", later)
    monkeypatch.setattr(analysis.run.measured_again, "measure", failing_for(0))
    measured(out, "sharpness")
    assert store.read_table(out)["seed"].tolist() == [1]


def test_a_run_that_failed_before_is_named_when_something_else_is_measured(out, monkeypatch):
    monkeypatch.setattr(analysis.run.measured_again, "measure", failing_for(0))
    measured(out, "sharpness", text=SHARPER)
    monkeypatch.undo()
    outcome, _ = measured(out, "flatness")
    assert "other settings than the study (measure.sharpness_rho: " in outcome.failed[FILES[0]]
    assert store.read_table(out)["seed"].tolist() == [1]


def test_a_run_that_diverged_gets_the_settings_and_no_numbers(tmp_path):
    out = tmp_path / "out"
    hot = "epochs = 3\nlearning_rate = 1e12"
    run_tiny(tmp_path, out, TINY.replace("epochs = 3", hot))
    outcome, _ = measured(out, text=OTHERWISE.replace("epochs = 3", hot))
    assert outcome.table["diverged"].all()
    assert outcome.table["sharpness_clean"].isna().all()
    assert "2 of 2 runs are there" in run_tiny(tmp_path, out, OTHERWISE.replace("epochs = 3", hot))[1]


def test_a_radius_that_training_probed_with_is_not_changed_afterward(tmp_path):
    out = tmp_path / "out"
    probed = OF_ONE_SEED.replace("epochs = 3", "epochs = 3\nprobe_epochs = [3]\nprobe_samples = 20")
    run_tiny(tmp_path, out, probed)
    with pytest.raises(
        store.StoreError, match=r"^measure\.sharpness_rho: .* probed the sharpness in training"
    ):
        measured(out, text=probed.replace("[measure]", "[measure]\nsharpness_rho = 0.1"))
    steps = probed.replace("sharpness_steps = 2", "sharpness_steps = 3")
    assert not measured(out, "sharpness", text=steps)[0].failed


def test_a_file_of_version_0_1_is_measured_again_and_is_one_of_today_then(tmp_path):
    out = tmp_path / "out"
    (out / FILES[0]).parent.mkdir(parents=True)
    shutil.copy(SCHEMA_1, out / FILES[0])
    before = contents(out / FILES[0])
    text = TINY.replace("train_samples = 200\ntest_samples = 100\nseeds = [0, 1]", "seeds = [0]")
    text = text.replace("epochs = 3\nalignment_batches = 0", "epochs = 2")
    (out / "study.toml").write_text(text.replace("samples = 20", "samples = 50").replace("= 10", "= 20"))
    outcome, _ = measured(out, text=text)
    assert not outcome.failed
    with store.opened(out / FILES[0]) as file:
        assert file["config"].attrs["schema_version"] == store.SCHEMA_VERSION
    assert store.read_config(out / FILES[0]).config.measure.samples == 20
    after = contents(out / FILES[0])
    assert len(after["measured_samples/train"]) == 20
    for name in before:
        if name.startswith("weights/"):
            np.testing.assert_array_equal(before[name], after[name])


def test_the_room_of_replaced_arrays_is_used_again(out):
    wide = TINY + "surface_rates = [0.4]\nsurface_seeds = [1]\nsurface_steps = 51\n"
    measured(out, "surfaces", "density", text=wide)
    size = (out / FILES[1]).stat().st_size
    measured(out, "surfaces", text=wide + "surface_extent = 0.5\n")
    # of descriptions HDF5 does not use the room again
    assert (out / FILES[1]).stat().st_size < size + 40_000


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_fills_no_groups_but_its_own(name, fresh):
    known = {group for measure in MEASURES.values() for group in measure.groups}
    with h5py.File(fresh / FILES[1]) as file:
        results = set()
        file.visititems(lambda path, item: results.add(path) if "type" in item.attrs else None)
    assert results == known
    others = {group for other in MEASURES.values() if other.name != name for group in other.groups}
    assert not others & set(MEASURES[name].groups)


def test_every_setting_belongs_to_a_measure(fresh):
    known = {field for measure in MEASURES.values() for field in measure.settings}
    assert known == set(type(read_study(fresh / "study.toml").measure).model_fields)


def test_a_study_with_other_measurements_is_answered_with_the_way_to_get_them(out, tmp_path):
    with pytest.raises(
        store.StoreError, match=r"measure\.sharpness_rho: 0\.5 there, 0\.1 now.*'ncsam measure .*out"
    ):
        run_tiny(tmp_path, out, SHARPER)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["{out}", "--only", "sharpnes"],
            "--only: unknown 'sharpnes'; known: bound, critical, curvature, density",
        ),
        (["{unmeasured}"], "has measured = false, and its runs are not measured; to measure, run it without"),
        (["{tmp}"], "holds no study.toml; run 'ncsam study' first"),
        (["{out}", "--study", "nowhere.toml"], "study: nowhere.toml does not exist"),
        (["{out}", "--study", "{other}"], "--study: is another study than the one in"),
        (["{empty}"], "results: no run of"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(out, tmp_path, capsys, options, says):
    other, empty = tmp_path / "other.toml", tmp_path / "empty"
    other.write_text(TINY.replace("epochs = 3", "epochs = 4"))
    empty.mkdir()
    shutil.copy(out / "study.toml", empty)
    unmeasured = tmp_path / "unmeasured"
    unmeasured.mkdir()
    (unmeasured / "study.toml").write_text(TINY.replace("seeds =", "measured = false\nseeds =", 1))
    places = {"out": out, "tmp": tmp_path, "other": other, "empty": empty, "unmeasured": unmeasured}
    filled = [text.format(**places) for text in options]
    assert cli.main(["measure", *filled, "--engine", "serial"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ncsam: error: ")
    assert says in error
    assert error.count("\n") == 1


def test_an_unknown_measure_is_told_by_its_field():
    with pytest.raises(ValueError, match="^names: unknown 'sharpnes'; known: bound"):
        measure(None, ["sharpnes"])


def test_runs_of_the_study_have_the_fingerprint_of_the_new_settings(otherwise, tmp_path):
    planned = {run.path: run.fingerprint for run in final_runs(study_of(tmp_path, OTHERWISE))}
    assert {path: store.read_record(otherwise / path).fingerprint for path in FILES} == planned
