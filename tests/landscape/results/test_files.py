"""Files are written whole or not at all."""

import os

import pytest

from landscape.results.files import TEMPORARY_NAME, replaced


@pytest.mark.parametrize("suffix", ["", ".gif"])
def test_a_written_file_is_flushed_and_then_its_folder(tmp_path, monkeypatch, suffix):
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda at: flushed.append(os.readlink(f"/proc/self/fd/{at}")) or fsync(at)
    )
    with replaced(tmp_path / f"file{suffix}", suffix=suffix) as beside:
        beside.write_text("content")
        assert beside.suffix == (suffix or ".tmp")
        assert TEMPORARY_NAME.fullmatch(beside.name)
    assert flushed == [str(beside), str(tmp_path)]
    assert [path.name for path in tmp_path.iterdir()] == [f"file{suffix}"]
