"""What is published: a source archive, and the wheel made from it, which works where the source tree is not."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile

import pytest

PACKAGES = ("analysis", "figures", "landscape", "ncsam")


@pytest.fixture(scope="module")
def published(pytestconfig, tmp_path_factory):
    """The folder with the archive and the wheel, built as `python -m build` builds them."""
    root, folder = pytestconfig.rootpath, tmp_path_factory.mktemp("published")
    source = folder / "source"
    source.mkdir()
    # building writes beside the sources
    for entry in root.iterdir():
        if not entry.name.startswith(".") and entry.name not in ("build", "dist", "results", "site"):
            (source / entry.name).symlink_to(entry)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "dist"


@pytest.fixture(scope="module")
def unpacked(published, tmp_path_factory):
    (wheel,) = published.glob("ncsam-*.whl")
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_archive_and_wheel_pass_the_index_checks(published):
    command = [sys.executable, "-m", "twine", "check", "--strict", *published.iterdir()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_archive_holds_the_license_the_citation_the_studies_and_the_tests(published):
    (archive,) = published.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
    for name in ("LICENSE", "CITATION.cff", "README.md", "Makefile", "constraints.txt", "studies/quick.toml"):
        assert name in names
    assert "tests/test_wheel.py" in names


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
    assert {path.name for path in unpacked.iterdir()} == {*PACKAGES, "ncsam_command.py", metadata.name}
    assert (metadata / "licenses/LICENSE").read_text().startswith("MIT License")


def test_the_command_works_where_only_the_wheel_is_installed(published, tmp_path):
    (wheel,) = published.glob("ncsam-*.whl")
    venv.create(tmp_path / "new")
    python = tmp_path / "new/bin/python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-deps", "--no-index"]
    subprocess.run([*install, wheel], check=True, capture_output=True)
    # the dependencies of this environment; its own installation of ncsam is found by a .pth file, which is not read
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    for command, says in (
        ([tmp_path / "new/bin/ncsam", "claims", "--list"], "G1"),
        # it ends in the same function
        ([python, "-m", "ncsam", "--version"], "ncsam "),
    ):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert says in done.stdout
    code = "import analysis, figures, landscape, ncsam; print(*(m.__file__ for m in (analysis, figures, landscape)))"
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count(str(tmp_path / "new")) == 3


def test_the_citation_names_the_version_and_license_of_the_package(pytestconfig):
    project = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())["project"]
    citation = (pytestconfig.rootpath / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    assert "2601.19947" in citation
