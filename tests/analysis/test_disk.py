"""A disk that is full, and a folder that cannot be written; root is let through by permissions, so these are mounts."""

import gc
import re
import shutil
import subprocess
from contextlib import suppress

import pytest

from analysis import cli
from analysis.store import StoreError
from tests.analysis.small_study import assert_same_results
from tests.analysis.tiny_study import UNMEASURED, run_tiny

FULL = r"cannot write to .*: No space left on device; what is finished is kept"
WIDER = UNMEASURED.replace("hidden = [4]", "hidden = [64]")


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own, and how to change it."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        subprocess.run(["mount", *options, str(folder)], check=True, capture_output=True)

    try:
        mount("-t", "tmpfs", "-o", "size=128k", "tmpfs")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"NOT TESTED: mounting is not allowed here ({error})")
    yield folder, mount
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(("size", "finished"), [("128k", 0), ("260k", 1)])
def test_a_full_disk_ends_the_study_with_a_word_and_room_lets_it_go_on(
    size, finished, disk, undisturbed, tmp_path
):
    out, mount = disk
    mount("-o", f"remount,size={size}")
    with pytest.raises(StoreError, match=FULL):
        run_tiny(tmp_path, out)
    files = list(out.rglob("seed*.h5"))
    assert len(files) == finished
    for path in files:
        assert_same_results(path, undisturbed / path.relative_to(out))
    assert not list(out.rglob("*.failed"))
    mount("-o", "remount,size=4m")
    outcome, _ = run_tiny(tmp_path, out)
    assert not outcome.failed
    for path in undisturbed.rglob("seed*.h5"):
        assert_same_results(out / path.relative_to(undisturbed), path)


@pytest.mark.usefixtures("copied_workers")
@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_disk_that_is_full_at_a_checkpoint_ends_the_study_in_the_same_way(engine, disk, tmp_path):
    out, mount = disk
    mount("-o", "remount,size=80k")
    with pytest.raises(StoreError, match=FULL):
        run_tiny(tmp_path, out, WIDER, engine)
    assert not list(out.rglob("*.failed"))
    assert not list(out.rglob("*.tmp"))
    mount("-o", "remount,size=4m")
    assert not run_tiny(tmp_path, out, WIDER)[0].failed


def test_a_disk_that_is_full_when_figures_are_drawn_leaves_one_line_and_the_old_files(
    disk, undisturbed, capfd
):
    out, mount = disk
    mount("-o", "remount,size=4m")
    shutil.copytree(undisturbed, out, dirs_exist_ok=True)
    study = (out / "study.toml").read_text()
    (out / "study.toml").write_text(f'claims = ["L1"]\n{study}')
    assert cli.main(["report", str(out)]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with suppress(OSError), (out / "filler").open("wb") as filler:
        while True:
            filler.write(bytes(1 << 12))
            filler.flush()
    capfd.readouterr()
    for command in (["report", "--parquet"], ["figures"]):
        assert cli.main([command[0], str(out), *command[1:]]) == 2
        gc.collect()
        errors = capfd.readouterr().err
        assert errors.count("\n") == 1, errors
        assert re.search(FULL, errors)
    (out / "filler").unlink()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert cli.main(["figures", str(out), "--only", "curvature"]) == 0


def test_a_read_only_folder_is_refused_in_a_line_and_untouched(disk, undisturbed, tmp_path, capsys):
    out, mount = disk
    mount("-o", "remount,size=4m")
    shutil.copytree(undisturbed, out, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    mount("-o", "remount,ro")
    with pytest.raises(StoreError, match=r"cannot write to .*: Read-only file system"):
        run_tiny(tmp_path, out)
    assert cli.main(["claims", str(out), "--claim", "L1"]) == 0
    printed = capsys.readouterr().out
    assert f"claims.json is not written into {out}: Read-only file system" in printed
    assert "not measured: L1" in printed
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
