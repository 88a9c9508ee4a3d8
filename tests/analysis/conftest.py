import fcntl
import shutil

import pytest

from analysis.cli import commands
from analysis.plan import own_parts
from analysis.statistics import information, resampling
from tests.analysis.small_study import study, write_study
from tests.analysis.tiny_study import run_tiny
from tests.ranks import workers_are_copies


def made_once(tmp_path_factory, name, make):
    """A folder of this process's own, with what `make` writes into a folder. It is made in one of pytest's workers."""
    base = tmp_path_factory.getbasetemp()
    # each worker has a folder in the one that all share
    shared = (base.parent if base.name.startswith("popen-") else base) / f"{name}-made"
    with open(f"{shared}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            unfinished = tmp_path_factory.mktemp(name)
            make(unfinished)
            unfinished.rename(shared)
    return shutil.copytree(shared, tmp_path_factory.mktemp(name), dirs_exist_ok=True)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of the small study."""

    def make(folder):
        assert study(write_study(folder), folder / "out") == 0

    folder = made_once(tmp_path_factory, "study", make)
    return folder / "small.toml", folder / "out"


@pytest.fixture(autouse=True)
def no_own_parts():
    """A test that gives `--with` begins as a process does: no file has been run."""
    own_parts.LOADED.clear()


@pytest.fixture
def quick_judgements(monkeypatch):
    """Fewer permutations, where no test compares closely."""
    monkeypatch.setattr(resampling, "PERMUTATIONS", 999)
    monkeypatch.setattr(information, "PERMUTATIONS", 199)


@pytest.fixture
def nothing_shown(monkeypatch):
    """`ncsam study` and `ncsam measure` write no report and no figures, which take longer than the tiny study."""
    monkeypatch.setattr(commands, "_write_what_people_see", lambda *_: None)


@pytest.fixture
def copied_workers(monkeypatch):
    """Workers start as copies of a process that has imported all, for tests that are not about their start."""
    workers_are_copies(monkeypatch)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The folder of the tiny study, run without any mishap."""

    def make(folder):
        outcome, _ = run_tiny(folder, folder / "out")
        assert not outcome.failed

    return made_once(tmp_path_factory, "tiny", make) / "out"
