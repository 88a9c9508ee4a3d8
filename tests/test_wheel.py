"""The wheel holds all that the packages need, and works where the source tree is not."""

import os
import subprocess
import sys
import zipfile

import pytest

PACKAGES = ("analysis", "figures", "landscape", "ncsam")


@pytest.fixture(scope="module")
def unpacked(pytestconfig, tmp_path_factory):
    """The contents of the wheel that setuptools builds from the files that git would carry."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("pyproject.toml", "README.md", *PACKAGES):
        target = source / name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(pytestconfig.rootpath / name)
    build = "import sys, setuptools.build_meta as build; build.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, folder], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("ncsam-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "unpacked")
    return folder / "unpacked"


def test_every_file_of_the_packages_is_in_the_wheel_and_nothing_else(unpacked, pytestconfig):
    root = pytestconfig.rootpath

    def files(folder):
        return {
            str(path.relative_to(folder))
            for package in PACKAGES
            for path in (folder / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    pictures = {name for name in files(root) if name.startswith("figures/gallery/")}
    assert files(unpacked) == files(root) - pictures
    assert {f"{package}/py.typed" for package in PACKAGES} <= files(unpacked)
    (metadata,) = unpacked.glob("ncsam-*.dist-info")
    assert {path.name for path in unpacked.iterdir()} == {*PACKAGES, metadata.name}
    assert "ncsam = analysis.cli:main" in (metadata / "entry_points.txt").read_text()


def test_the_command_works_from_the_wheel_alone(unpacked, tmp_path):
    code = (
        "import sys, ncsam, landscape, figures, analysis, analysis.report\n"
        "from analysis import cli\n"
        "assert all(m.__file__.startswith(sys.argv[1]) for m in (ncsam, landscape, figures, analysis))\n"
        "assert cli.main(['claims', '--list']) == 0\n"
        "cli.main(['--help'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, unpacked],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: ncsam" in done.stdout
    assert "G1" in done.stdout
