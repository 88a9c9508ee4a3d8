"""One version everywhere, and no other is named as the one that is to come."""

import re
import tomllib

import pytest

from analysis.claims.quantities import CONVERGED_SINCE


@pytest.fixture
def version(pytestconfig):
    return tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize(
    ("file", "place"), [("CITATION.cff", r"^version: (\S+)$"), ("CHANGELOG.md", r"^## (\d\S*)")]
)
def test_the_first_version_that_a_file_names_is_the_packages_own(file, place, version, pytestconfig):
    text = (pytestconfig.rootpath / file).read_text()
    assert re.search(place, text, re.MULTILINE)[1] == version


def test_the_version_from_which_on_sharpness_has_converged_is_this_one_or_an_earlier_one(version):
    assert tuple(map(int, CONVERGED_SINCE.split("."))) <= tuple(map(int, version.split(".")))
