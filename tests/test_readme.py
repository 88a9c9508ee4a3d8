"""Every snippet and every command of the README runs."""

import re
import shlex

import pytest

from analysis import cli

MINIATURE = {
    r"^seeds = \[0, 1, 2\]": "seeds = [0]",
    r"^epochs = .*": "epochs = 1",
    r"^rates = .*": "rates = [0.4]",
    r"^hidden = .*": "hidden = [8]",
    r"^rho = .*": "rho = 0.1",
    r"^strength = .*": "strength = 0.1",
    r"^samples = .*": "samples = 50",
    r"^surface_steps = .*": "surface_steps = 3",
    r"^line_steps = .*": "line_steps = 3",
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


def test_commands_and_then_snippets_run_in_the_order_of_the_page(readme, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    commands = [
        line for block in blocks(readme, "sh") for line in block.splitlines() if line.startswith("ncsam ")
    ]
    assert len(commands) >= 4
    for command in commands:
        arguments = shlex.split(command, comments=True)[1:]
        assert cli.main([*arguments, *(["--engine", "serial"] if "study" in arguments else [])]) == 0, command

    snippets = blocks(readme, "python")
    assert len(snippets) >= 5
    names = {}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), names)
    assert names["history"].epochs == 5
    assert names["eigen"].converged.all()
    assert names["memorized"].shape == (1,)


def test_the_example_study_is_valid(readme, tmp_path):
    from analysis.plan import final_runs, read_study

    (example,) = blocks(readme, "toml")
    path = tmp_path / "example.toml"
    path.write_text(example)
    assert len(final_runs(read_study(path))) == 5 * 2 * 4


def test_make_targets_named_exist(readme, pytestconfig):
    makefile = (pytestconfig.rootpath / "Makefile").read_text()
    contributing = (pytestconfig.rootpath / "CONTRIBUTING.md").read_text()
    for target in re.findall(r"^make (\w+)", readme + contributing, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def test_pictures_and_pages_named_exist(readme, pytestconfig):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", readme):
        assert (pytestconfig.rootpath / target).is_file(), target
