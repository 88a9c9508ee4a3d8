"""A mistake in a part of one's own is one line with the line of the file, before work is lost."""

import random
from collections import OrderedDict

import numpy as np
import pytest
import torch

from analysis import cli, store
from analysis.claims import SGD, Claim, Level, judge
from analysis.plan import final_runs, read_study
from analysis.run.context import RunContext
from analysis.run.own_measures import register_measure
from analysis.run.own_measures_tried import try_own_measures
from tests.analysis.own_study import MINE, STUDY, forgotten_at_the_end, study
from tests.analysis.tiny_study import TINY


@pytest.fixture
def folder(tmp_path, nothing_shown, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "own.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    with forgotten_at_the_end():
        yield tmp_path


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module", "--with: mine.py, line 1: ModuleNotFoundError"),
        ("def", "--with: mine.py fails: SyntaxError"),
        (
            "from ncsam import METHOD_REGISTRY, SAM\nMETHOD_REGISTRY.register('sam')(SAM)",
            "the name 'sam' is taken",
        ),
        (
            "from analysis.run.own_measures import register_measure\nregister_measure('trace 2', ['a b'], print)",
            "columns: must be names",
        ),
    ],
)
def test_a_file_that_cannot_be_taken_is_refused_in_one_line(source, says, folder, capsys):
    (folder / "mine.py").write_text(source)
    assert study("--with", "mine.py") == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            MINE.replace("def blobs(folder)", "def blobs()"),
            "a part of mine.py, or ncsam itself: TypeError: blobs() takes 0",
        ),
        (
            MINE.replace('make_dataset("blobs", ', "make_dataset("),
            "TypeError: make_dataset() missing 1 required",
        ),
        (
            MINE.replace("Corruption(observed)", "observed"),
            "must draw an ncsam.Corruption(observed), got a Tensor",
        ),
        (MINE.replace("NoiseKind(first_ones)", "first_ones"), "has no attribute 'draw'"),
    ],
)
def test_a_part_that_is_not_what_its_registry_takes_is_one_line(source, says, folder, capsys, monkeypatch):
    # data of this name that another test read are not kept
    monkeypatch.setattr("ncsam.datasets.kept._kept", OrderedDict())
    (folder / "mine.py").write_text(source)
    assert study("--with", "mine.py") == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


BAD_STEP = "\n    def backward(self, *batch):\n        return self.nothing\n"
"""A mistake that only a training meets."""


@pytest.mark.usefixtures("copied_workers")
@pytest.mark.parametrize(("engine", "workers"), [("serial", "1"), ("processes", "1")])
def test_the_error_of_a_run_names_the_line_of_the_users_file(engine, workers, folder, capsys):
    text = MINE.replace("rho=factor * rho)\n", f"rho=factor * rho)\n{BAD_STEP}", 1)
    (folder / "mine.py").write_text(text)
    line = 1 + text.splitlines().index("        return self.nothing")
    (folder / "own.toml").write_text(STUDY.replace("rho = [0.1, 0.2]", "rho = 0.1"))
    assert study("--with", "mine.py", "--workers", workers, engine=engine) == 1
    (failure,) = (folder / "out").rglob("*.failed")
    says = f"mine.py, line {line}: AttributeError: 'ScaledSAM' object has no attribute 'nothing'"
    assert failure.read_text().strip() == says
    assert says in " ".join(capsys.readouterr().out.split())


def test_a_mistake_in_a_measure_is_told_before_the_first_training(folder, capsys):
    text = MINE.replace("data.held_out", "data.test")
    (folder / "mine.py").write_text(text)
    line = 1 + next(number for number, each in enumerate(text.splitlines()) if "data.test" in each)
    assert study("--with", "mine.py") == 2
    says = f"--with: mine.py, line {line}: AttributeError: 'RunData' object has no attribute 'test'"
    assert says in capsys.readouterr().err
    assert not list((folder / "out").rglob("seed*"))


@pytest.mark.parametrize("name", ["my-own-method", "bad-sam"])
def test_an_unknown_method_asks_for_the_file_too(name, folder, capsys):
    (folder / "own.toml").write_text(TINY.replace('"plain"', f'"{name}"'))
    assert study() == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"methods.0.name: unknown {name!r}" in said
    assert "a part of your own needs --with FILE" in said


def test_a_folder_made_with_a_file_is_refused_without_it_even_if_no_run_finished(folder, capsys):
    (folder / "own.toml").write_text(TINY)
    known = read_study(folder / "own.toml")
    (folder / "out").mkdir()
    store.write_study(folder / "out", known.model_copy(update={"own_parts": {"mine.py": "0" * 64}}))
    assert study() == 2
    assert "add --with mine.py, or choose another --out" in " ".join(capsys.readouterr().err.split())


def test_an_own_claim_by_its_id_asks_for_the_file(folder, capsys):
    (folder / "own.toml").write_text(TINY)
    known = read_study(folder / "own.toml")
    store.write_study(folder, known.model_copy(update={"own_parts": {"mine.py": "0" * 64}}))
    assert cli.main(["claims", str(folder), "--claim", "X1"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "this study was made with mine.py: add --with mine.py" in said


def test_a_claim_on_a_measure_that_no_run_has_says_so(undisturbed, monkeypatch):
    monkeypatch.setitem(store.OWN_COLUMNS, "test_margin", "margins")
    claim = Claim("X9", "s", "p", [Level("test_margin", SGD, sign=1)])
    with pytest.raises(ValueError, match="of the measure 'margins', which no run of this study has"):
        judge(store.read_table(undisturbed), [claim])


def of_all_generators():
    state = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), state[1].tolist(), state[2], random.getstate()


def test_calling_the_measures_first_moves_no_generator(folder):
    def draws(subject):
        return {"drawn": torch.rand(1).item() + np.random.rand() + random.random()}  # noqa: NPY002

    (folder / "tiny.toml").write_text(TINY)
    run = final_runs(read_study(folder / "tiny.toml"))[0]
    before = of_all_generators()
    register_measure("drawing", ["drawn"], draws)
    try_own_measures(run, RunContext(folder))
    assert of_all_generators() == before
