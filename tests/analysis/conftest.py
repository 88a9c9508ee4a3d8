import pytest

from tests.analysis.small_study import study, write_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of the small study, run once in this process."""
    folder = tmp_path_factory.mktemp("study")
    path = write_study(folder)
    assert study(path, folder / "out") == 0
    return path, folder / "out"
