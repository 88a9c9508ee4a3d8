"""A study folder that somebody else filled: links, FIFOs, left-overs, and text that would steer a terminal."""

import errno
import fcntl
import json
import os
import shutil

import h5py
import pandas as pd
import pytest

from analysis import cli, store
from analysis.cli import commands
from analysis.plan.run_config import digest
from analysis.printable import printable
from analysis.report.page import csv
from landscape.results import files
from ncsam.seal import sealed
from tests.analysis.test_trust import FIRST, rewrite
from tests.analysis.tiny_study import TINY, run_tiny


@pytest.fixture
def out(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("name", [".lock", "claims.json", "report.html", "figures", "study.toml", FIRST])
@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_a_folder_with_links_or_fifos_is_refused_and_nothing_is_written_through_them(
    out, tmp_path, name, kind, capsys
):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (out / name).unlink(missing_ok=True)
    if kind == "link":
        (out / name).symlink_to(victim)
    else:
        os.mkfifo(out / name)
    with pytest.raises(
        store.StoreError, match=r"is (a link|no regular file); a study's folder holds regular files"
    ):
        run_tiny(tmp_path, out)
    for command in ("claims", "report", "figures"):
        assert cli.main([command, str(out)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name = 1",
        "training = 1",
        "noise = []",
        "a = " + "[" * 50_000,
        "a = " + "9" * 5_000,
        "a = 1\n" * 2,
        "\0",
    ],
    ids=["nothing", "a number", "no table", "a list", "deep", "long", "twice", "no text"],
)
def test_whatever_a_folders_study_says_one_line_answers(out, undisturbed, tmp_path, text, capsys):
    (out / "study.toml").write_text(text)
    with pytest.raises(store.StoreError, match=r"study\.toml|holds the study"):
        run_tiny(tmp_path, out)
    with pytest.raises(ValueError, match="^results: ") as refused:
        store.read_tables([out, undisturbed])
    assert "\n" not in str(refused.value)
    for command in (["info", str(out)], ["claims", str(out)], ["measure", str(out)], ["report", str(out)]):
        assert cli.main(command) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_runs_that_a_study_no_longer_has_are_told(out, tmp_path, capsys, monkeypatch):
    """Results of seeds that were taken out of a study were left out without a word."""
    monkeypatch.setattr(commands, "_judgements", lambda *_: [])
    monkeypatch.setattr(commands, "_write_what_people_see", lambda *_: None)
    path = tmp_path / "narrow.toml"
    path.write_text(TINY.replace("seeds = [0, 1]", "seeds = [0]"))
    study = ["study", path, "--out", out, "--engine", "serial"]
    for command in (study, ["results", out], ["claims", out]):
        assert cli.main([*map(str, command)]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert f"not counted: 1 run file belongs to no run of the study in {out} (runs/" in told


def test_the_folder_itself_may_be_a_link(out, tmp_path):
    (tmp_path / "link").symlink_to(out)
    assert not run_tiny(tmp_path, tmp_path / "link")[0].failed


def test_what_a_kill_left_beside_a_finished_run_is_taken_away(out, tmp_path):
    left = [(out / FIRST).with_suffix(".failed"), (out / FIRST).with_name("seed0.0123456789ab.ckpt")]
    others = (out / FIRST).with_name("seed10.0123456789ab.ckpt")
    for path in (*left, others):
        path.write_text("left over")
    assert cli.main(["report", str(out)]) == 0
    assert "left over" not in (out / "report.html").read_text()
    run_tiny(tmp_path, out)
    assert not any(path.exists() for path in left)
    assert others.exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_cannot_lock_is_named_and_the_study_goes_on(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = []
    with store.locked(tmp_path / "out", said.append):
        pass
    assert len(said) == 1
    assert "cannot lock" in said[0]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_cannot_flush_folders_still_takes_files(tmp_path, monkeypatch, number):
    def refuse(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    store.write_text(tmp_path / "new/file.txt", "text")
    assert (tmp_path / "new/file.txt").read_text() == "text"


def test_a_disk_that_fails_while_flushing_is_an_error(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        store.write_text(tmp_path / "file.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_verdicts_are_written_whole_or_not_at_all(out, monkeypatch, capsys):
    # which claims are judged does not matter here
    (out / "study.toml").write_text(f'claims = ["L1"]\n{(out / "study.toml").read_text()}')
    assert cli.main(["claims", str(out)]) == 0
    before = (out / "claims.json").read_text()
    real = files.os.fsync

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    assert cli.main(["claims", str(out)]) == 0
    monkeypatch.setattr(files.os, "fsync", real)
    assert "claims.json is not written" in capsys.readouterr().out
    assert (out / "claims.json").read_text() == before


@pytest.mark.parametrize("text", ["\x1b[31mred", "\x9b31m", "a\x07b", "\u202ebidi", "a\x00"])
def test_what_would_steer_a_terminal_is_shown_as_an_escape(text):
    assert printable(text).isprintable()
    assert printable("Länge λ, 3 × 4\n") == "Länge λ, 3 × 4\n"


def test_a_run_whose_words_cannot_be_printed_is_broken(out):
    def color(file):
        attributes = file["config"].attrs
        config = json.loads(attributes["config"])
        config["dataset"] += "\x1b[31m"
        attributes["config"], attributes["fingerprint"] = json.dumps(config), digest(config)

    rewrite(out / FIRST, color)
    with pytest.raises(store.BrokenFileError, match="cannot be printed"):
        store.read_record(out / FIRST)


def test_an_index_with_brackets_in_its_words_is_printed_as_it_is(out, capsys):
    with h5py.File(out / "study.h5", "a") as file:
        file["table/method"][...] = "[/red]x"
    (out / "study.h5").write_bytes(sealed((out / "study.h5").read_bytes()))
    assert cli.main(["results", str(out)]) == 0
    assert "[/red]x" in capsys.readouterr().out


def test_words_that_a_spreadsheet_would_compute_are_words_in_the_csv():
    table = pd.DataFrame(
        {"method": ["=1+1", "@x", "-a", "SGD"], "value": [-1.0, 2.0, 3.0, 4.0], "seed": [-1, 0, 1, 2]}
    )
    lines = csv(table).splitlines()
    assert lines[1:] == ["'=1+1,-1.0,-1", "'@x,2.0,0", "'-a,3.0,1", "SGD,4.0,2"]
