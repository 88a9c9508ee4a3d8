import pytest

from analysis.cli import commands
from analysis.plan import own_parts
from analysis.statistics import information, resampling
from tests.analysis.small_study import study, write_study
from tests.analysis.tiny_study import run_tiny


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of the small study, run once in this process."""
    folder = tmp_path_factory.mktemp("study")
    path = write_study(folder)
    assert study(path, folder / "out") == 0
    return path, folder / "out"


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


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The folder of the tiny study, run without any mishap."""
    folder = tmp_path_factory.mktemp("tiny")
    outcome, _ = run_tiny(folder, folder / "out")
    assert not outcome.failed
    return folder / "out"
