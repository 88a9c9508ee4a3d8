"""A file is on the disk before it takes the place of the former one."""

import errno
import os

import pytest

from landscape.results.files import is_left_over
from ncsam import whole_file
from ncsam.whole_file import written_whole
from tests.ncsam.small_training import train


@pytest.fixture
def calls(monkeypatch):
    """(what was called, the file or folder) in order."""
    seen = []
    replace, fsync = os.replace, os.fsync

    def flushed(descriptor):
        seen.append(("flush", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def replaced(source, target):
        seen.append(("replace", str(target)))
        replace(source, target)

    monkeypatch.setattr(whole_file.os, "fsync", flushed)
    monkeypatch.setattr(whole_file.os, "replace", replaced)
    return seen


def test_the_content_is_flushed_before_the_name_changes_and_the_name_after(tmp_path, calls):
    path = tmp_path / "file"
    with written_whole(path) as beside:
        beside.write_text("content")
    assert calls == [("flush", str(beside)), ("replace", str(path)), ("flush", str(tmp_path))]
    assert path.read_text() == "content"
    assert list(tmp_path.iterdir()) == [path]


def test_others_can_tell_whether_the_writer_has_died(tmp_path):
    with written_whole(tmp_path / "run.ckpt") as beside:
        beside.touch()
        assert not is_left_over(beside)
        of_the_dead = beside.with_name(beside.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))
        assert is_left_over(of_the_dead)


def test_every_checkpoint_of_a_training_is_flushed(digits, tmp_path, calls):
    path = tmp_path / "run.ckpt"
    train(digits, "plain", epochs=2, checkpoint=path)
    assert [what for what, _ in calls] == ["flush", "replace", "flush"] * 2


def test_a_full_disk_leaves_the_former_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("former")

    def full(_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(whole_file.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"), written_whole(path) as beside:
        beside.write_text("new")
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_that_cannot_flush_is_written_to_all_the_same(tmp_path, monkeypatch):
    def cannot(_):
        raise OSError(errno.EINVAL, "not supported")

    monkeypatch.setattr(whole_file.os, "fsync", cannot)
    with written_whole(tmp_path / "file") as beside:
        beside.write_text("content")
    assert (tmp_path / "file").read_text() == "content"
