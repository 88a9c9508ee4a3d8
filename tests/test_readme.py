"""Every snippet and every command of the README runs."""

import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from analysis import cli
from ncsam import METHODS, hyperparameters

MINIATURE = {
    r"^seeds = \[0, 1, 2\]": "seeds = [0]",
    r"^epochs = .*": "epochs = 1",
    r"^rates = .*": "rates = [0.4]",
    r"^hidden = .*": "hidden = [8]",
    r"^rho = .*": "rho = 0.1",
    r"^strength = .*": "strength = 0.1",
    r"^samples = .*": "samples = 50",
    r"^trace_max_products = .*": "trace_max_products = 10\nsharpness_steps = 2",
    r"^surface_steps = .*": "surface_steps = 3",
    r"^line_steps = .*": "line_steps = 3",
    r"# Controls[\s\S]*?(?=\[selection\])": "",
}


@pytest.fixture(scope="module")
def readme(pytestconfig):
    return (pytestconfig.rootpath / "README.md").read_text()


@pytest.fixture(scope="module")
def folder(pytestconfig, tmp_path_factory):
    """A folder with the quick study in miniature: the README's paths, few and short runs."""
    folder = tmp_path_factory.mktemp("readme")
    text = (pytestconfig.rootpath / "studies/quick.toml").read_text()
    for pattern, replacement in MINIATURE.items():
        text, count = re.subn(pattern, replacement, text, flags=re.M)
        assert count, pattern
    (folder / "studies").mkdir()
    (folder / "studies/quick.toml").write_text(text)
    return folder


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def test_commands_snippets_and_the_picture_run_in_the_order_of_the_page(
    readme, folder, monkeypatch, capsys, pytestconfig
):
    monkeypatch.chdir(folder)
    commands = [
        line for block in blocks(readme, "sh") for line in block.splitlines() if line.startswith("ncsam ")
    ]
    assert len(commands) == 4
    for command in commands:
        arguments = shlex.split(command, comments=True)[1:]
        assert cli.main([*arguments, *(["--engine", "serial"] if "study" in arguments else [])]) == 0, command

    snippets = blocks(readme, "python")
    assert len(snippets) == 2
    names = {}
    for snippet in snippets:
        capsys.readouterr()
        exec(compile(snippet, "README.md", "exec"), names)
        assert capsys.readouterr().out
        assert len([line for line in snippet.splitlines() if line]) <= 9
    assert names["history"].epochs == 5
    assert names["eigen"].converged.all()

    # by the script that the page names, from the study's folder
    script = pytestconfig.rootpath / "bench/readme_picture.py"
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath)}
    drawn = folder / "drawn.png"
    subprocess.run(
        [sys.executable, script, folder / "results/quick", "--out", drawn], check=True, env=environment
    )
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_it_is_short(readme):
    assert len(readme.splitlines()) <= 120


def test_badges_say_what_the_package_says(readme, pytestconfig):
    project = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())["project"]
    pythons = [text.split(" :: ")[-1] for text in project["classifiers"] if "Python :: 3." in text]
    assert f"python-{pythons[0]}%20to%20{pythons[-1]}-" in readme
    assert project["requires-python"] == f">={pythons[0]}"
    (torch,) = [
        text.removeprefix("torch>=") for text in project["dependencies"] if text.startswith("torch>=")
    ]
    assert f"torch-from%20{torch}-" in readme
    assert f"license-{project['license']}-" in readme
    assert f"version = {{{project['version']}}}" in readme


def test_the_picture_that_lies_there_is_small(pytestconfig):
    assert (pytestconfig.rootpath / "figures/gallery/sgd_beside_sam.png").stat().st_size < 300 * 1024


def test_make_targets_named_exist(readme, pytestconfig):
    makefile = (pytestconfig.rootpath / "Makefile").read_text()
    contributing = (pytestconfig.rootpath / "CONTRIBUTING.md").read_text()
    for target in re.findall(r"^make (\w+)", readme + contributing, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def test_pictures_and_pages_named_exist(readme, pytestconfig):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", readme):
        assert (pytestconfig.rootpath / target).is_file(), target


def test_the_number_of_sams_variants_is_that_of_the_methods_with_a_radius(readme):
    count = sum("rho" in hyperparameters(name) for name in METHODS)
    assert f"| SAM and its variants | {count}, " in readme
