"""A folder beside a script that hides one of the four packages is found and named."""

import os
import subprocess
import sys

import pytest

PACKAGES = ("analysis", "figures", "landscape")


def run(root, folder, *command):
    """The command in a folder that Python searches first, as it does that of a script."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(root)])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(params=["a package", "a folder of files", "a module"])
def hiding(request, tmp_path):
    """(what lies in the folder by the name of each package, whether these are folders without Python in them)."""
    places = {name: tmp_path / name for name in PACKAGES}
    if request.param == "a module":
        places = {name: place.with_suffix(".py") for name, place in places.items()}
        for place in places.values():
            place.write_text("")
        return places, False
    for place in places.values():
        place.mkdir()
        (place / ("__init__.py" if request.param == "a package" else "plot.png")).write_text("")
    return places, request.param == "a folder of files"


def test_importing_ncsam_warns_and_says_by_what(hiding, tmp_path, pytestconfig):
    places, is_plain = hiding
    done = run(pytestconfig.rootpath, tmp_path, "-c", "import ncsam; print(ncsam.SAM.__name__)")
    assert done.returncode == 0
    assert done.stdout == "SAM\n"
    # packages that are installed whole win over a folder without Python in it
    for name, place in places.items():
        assert (f"{place} hides the package {name!r}" in done.stderr) != is_plain


def test_the_command_refuses_and_says_by_what(hiding, tmp_path, pytestconfig):
    places, is_plain = hiding
    code = "import sys, ncsam_command; sys.exit(ncsam_command.main(['claims', '--list']))"
    done = run(pytestconfig.rootpath, tmp_path, "-c", code)
    if is_plain:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    words = "; ".join(f"{place} hides the package {name!r} of ncsam" for name, place in places.items())
    assert done.stderr.startswith(f"ncsam: error: {words}: ")
    assert done.stderr.count("\n") == 1


def test_a_plain_folder_hides_a_package_that_is_installed_for_editing(tmp_path, pytestconfig):
    """Python then looks for packages in folders first, and takes even one without Python in it."""
    (tmp_path / "figures").mkdir()
    finder = (
        "import sys, importlib.util\n"
        "class Editable:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        root = {str(pytestconfig.rootpath)!r}\n"
        "        if name == 'ncsam_command':\n"
        "            return importlib.util.spec_from_file_location(name, f'{root}/{name}.py')\n"
        "        if name in ('analysis', 'figures', 'landscape', 'ncsam'):\n"
        "            return importlib.util.spec_from_file_location(\n"
        "                name, f'{root}/{name}/__init__.py', submodule_search_locations=[f'{root}/{name}'])\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f).lower()] + [Editable]\n"
        "import ncsam\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", finder],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'figures'} hides the package 'figures'" in done.stderr


def test_nothing_is_said_where_nothing_is_hidden(tmp_path, pytestconfig):
    done = run(pytestconfig.rootpath, tmp_path, "-W", "error", "-c", "import ncsam")
    assert done.returncode == 0, done.stderr
