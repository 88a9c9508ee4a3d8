"""Every notebook of docs/notebooks runs from top to bottom, in a folder of its own."""

import os

import jupytext
import nbclient
import pytest

NOTEBOOKS = ("my_checkpoint", "quickstart", "results", "wrong_labels")
SECONDS_OF_A_CELL = 120


def read(root, name):
    return jupytext.read(root / f"docs/notebooks/{name}.py")


@pytest.fixture(scope="module", params=NOTEBOOKS)
def executed(request, pytestconfig, tmp_path_factory):
    """(name, the notebook with its outputs)."""
    notebook = read(pytestconfig.rootpath, request.param)
    folder = tmp_path_factory.mktemp(request.param)
    paths = [str(pytestconfig.rootpath), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        client = nbclient.NotebookClient(
            notebook, timeout=SECONDS_OF_A_CELL, resources={"metadata": {"path": str(folder)}}
        )
        return request.param, client.execute()


def outputs(notebook, kind):
    return [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {}) or output.get("name") == kind
    ]


def test_it_runs_and_shows_numbers_and_a_picture(executed):
    _, notebook = executed
    assert outputs(notebook, "stdout")
    assert outputs(notebook, "image/png")
    # such as a warning of a call that is out of date
    assert not outputs(notebook, "stderr")


def test_the_first_cell_installs_what_is_missing(pytestconfig):
    for name in NOTEBOOKS:
        first = next(cell for cell in read(pytestconfig.rootpath, name).cells if cell.cell_type == "code")
        assert "pip" in first.source
        assert "find_spec" in first.source


def test_every_notebook_is_tested(pytestconfig):
    assert sorted(path.stem for path in (pytestconfig.rootpath / "docs/notebooks").glob("*.py")) == list(
        NOTEBOOKS
    )


def test_suspicious_labels_are_mostly_wrong(executed):
    name, notebook = executed
    if name == "wrong_labels":
        (said,) = [output.text for output in outputs(notebook, "stdout") if "most suspicious" in output.text]
        share = int(said.split("labels ")[1].split("%")[0])
        assert share >= 80, said
