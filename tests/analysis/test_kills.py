"""kill -9 at the worst moments, in a process that is one moment's copy of this one."""

import os
import time
from pathlib import Path

import pytest

import analysis.run.one_run
import ncsam.training
from analysis.store import files
from tests.analysis.small_study import assert_same_results
from tests.analysis.tiny_study import TINY, UNMEASURED, finished_tiny, killed_at, mark_and_wait, run_tiny


def in_training(monkeypatch, mark):
    save = ncsam.training.save_checkpoint

    def saved(*arguments):
        save(*arguments)
        mark_and_wait(mark)

    monkeypatch.setattr(ncsam.training, "save_checkpoint", saved)


def in_measuring(monkeypatch, mark):
    monkeypatch.setattr(analysis.run.one_run, "measure", lambda *_, **__: mark_and_wait(mark))


def in_writing(monkeypatch, mark):
    """The file lies there under its passing name, half of it."""

    real = Path.write_bytes

    def half(path, content):
        if "seed" not in path.name:
            real(path, content)
            return
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        mark_and_wait(mark)

    monkeypatch.setattr("pathlib.Path.write_bytes", half)


def wait_before_renaming(monkeypatch, mark, pattern):
    def waiting(beside, path):
        if path.match(pattern):
            mark_and_wait(mark)
        os.rename(beside, path)

    monkeypatch.setattr(files.os, "replace", waiting)


def before_the_rename(monkeypatch, mark):
    wait_before_renaming(monkeypatch, mark, "*.h5")


def after_the_rename(monkeypatch, mark):
    """The file has its name; what the run leaves is not yet cleaned."""

    def renamed(beside, path):
        os.rename(beside, path)
        if path.match("seed*.h5"):
            # as if an earlier try had failed
            path.with_suffix(".failed").write_text("an earlier try")
            mark_and_wait(mark)

    monkeypatch.setattr(files.os, "replace", renamed)


FINISHED = {"after_the_rename": 1, "in_writing_the_index": 2}
"""Runs that are there after the kill, if any."""


def in_writing_the_index(monkeypatch, mark):
    wait_before_renaming(monkeypatch, mark, "study.h5")


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory):
    """The tiny study without measurements, run without any mishap."""
    return finished_tiny(tmp_path_factory.mktemp("unmeasured"), UNMEASURED)


@pytest.mark.parametrize(
    "moment",
    [in_training, in_measuring, in_writing, before_the_rename, after_the_rename, in_writing_the_index],
)
def test_a_kill_loses_nothing_finished_and_takes_nothing_half_done(undisturbed, unmeasured, tmp_path, moment):
    out, mark = tmp_path / "out", tmp_path / "mark"
    text, whole = (TINY, undisturbed) if moment is in_measuring else (UNMEASURED, unmeasured)
    with pytest.MonkeyPatch.context() as monkeypatch:
        moment(monkeypatch, mark)
        killed_at(mark, lambda: run_tiny(tmp_path, out, text))
    there = {path: path.stat().st_mtime_ns for path in out.rglob("seed*.h5")}
    assert len(there) == FINISHED.get(moment.__name__, 0)
    outcome, _ = run_tiny(tmp_path, out, text)
    assert not outcome.failed
    for path in whole.rglob("seed*.h5"):
        assert_same_results(out / path.relative_to(whole), path)
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in there.items())
    assert not [path for path in out.rglob("*") if path.suffix in (".tmp", ".ckpt", ".failed")]


def test_a_clock_that_jumps_changes_no_number(undisturbed, tmp_path, monkeypatch):
    jumping = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(jumping)))
    out = tmp_path / "out"
    run_tiny(tmp_path, out)
    for path in out.rglob("seed*.h5"):
        assert_same_results(path, undisturbed / path.relative_to(out))
        os.utime(path, (4e9, 4e9))
    _, printed = run_tiny(tmp_path, out)
    assert "2 of 2 runs are there" in printed
