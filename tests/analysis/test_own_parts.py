"""`--with mine.py`: parts of one's own in a study, whose file is part of the fingerprint and not needed to read."""

import contextlib
import json
import re
import shutil

import pytest
import torch

from analysis import cli, store
from analysis.claims import SGD, Claim, Level, judge
from analysis.cli import commands
from analysis.plan import final_runs, own_parts, read_study
from tests.analysis.own_study import MINE, STUDY, forgotten_at_the_end, study
from tests.analysis.tiny_study import TINY, finished_tiny


@pytest.fixture
def registries():
    with forgotten_at_the_end() as forget:
        yield forget


@pytest.fixture
def folder(tmp_path, registries, nothing_shown, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "own.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def study_of_own_parts(tmp_path_factory):
    """The results of the study with its own parts, run once in this process."""
    made = tmp_path_factory.mktemp("own")
    (made / "mine.py").write_text(MINE)
    (made / "own.toml").write_text(STUDY)
    with forgotten_at_the_end(), contextlib.chdir(made), pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "_write_what_people_see", lambda *_: None)
        assert study("--with", "mine.py") == 0
    return made / "out"


@pytest.fixture
def with_results(folder, study_of_own_parts):
    """The folder with the results of its study, whose own parts this process has not read."""
    shutil.copytree(study_of_own_parts, folder / "out")
    return folder


def test_every_kind_of_part_works_in_a_study(study_of_own_parts):
    assert_every_part_worked(study_of_own_parts)


@pytest.mark.usefixtures("copied_workers")
def test_every_kind_of_part_works_in_worker_processes(folder, capsys):
    assert study("--with", "mine.py", "--workers", "1", engine="processes") == 0, capsys.readouterr()
    assert_every_part_worked(folder / "out")


def assert_every_part_worked(out):
    table = store.read_table(out)
    (run,) = table.to_dict("records")
    assert run["method_name"] == "scaled-sam"
    assert run["loss"] == "brier"
    assert run["realised_noise_rate"] == 0.25
    assert 0.5 <= run["mean_confidence"] <= 1
    (path,) = store.run_files(out)
    stored = store.read_config(path)
    assert stored.hyperparameters["factor"] == 3.0
    assert stored.config.own_parts == list(read_study(out / "study.toml").own_parts.values())


def test_results_are_read_without_the_file_and_own_claims_wait_for_it(with_results, capsys):
    folder = with_results
    for command in (["results", "out"], ["report", "out"], ["info", "out"], ["figures", "out"]):
        assert cli.main(command) == 0, (command, capsys.readouterr().err)
    assert cli.main(["claims", "out"]) == 0
    assert [each["id"] for each in json.loads((folder / "out/claims.json").read_text())] == ["L1"]
    # an index that is lost is made anew from the run files
    (folder / "out/study.h5").write_bytes(b"broken")
    assert "mean_confidence" in store.read_table(folder / "out")
    assert cli.main(["claims", "out", "--with", "mine.py"]) == 0
    assert [each["id"] for each in json.loads((folder / "out/claims.json").read_text())] == ["X1", "L1"]


def test_finished_runs_are_kept_and_a_changed_file_is_another_study(with_results, registries, capsys):
    folder = with_results
    before = {path: path.read_bytes() for path in (folder / "out").rglob("seed*.h5")}
    assert study("--with", "mine.py") == 0
    assert {path: path.read_bytes() for path in before} == before
    registries()
    (folder / "mine.py").write_text(MINE.replace("factor * rho", "factor * rho + 0"))
    capsys.readouterr()
    assert study("--with", "mine.py") == 2
    assert "own_parts" in capsys.readouterr().err


@pytest.mark.usefixtures("with_results")
def test_measuring_again_needs_the_file_and_says_so(capsys):
    assert cli.main(["measure", "out", "--engine", "serial"]) == 2
    assert "needs --with mine.py" in capsys.readouterr().err
    command = ["measure", "out", "--engine", "serial", "--with", "mine.py", "--only", "confidence"]
    assert cli.main(command) == 0


@pytest.mark.usefixtures("with_results")
def test_a_folders_own_study_file_never_runs_the_file(capsys):
    assert cli.main(["study", "out/study.toml", "--out", "other", "--engine", "serial"]) == 2
    assert "needs --with mine.py" in capsys.readouterr().err
    assert not own_parts.LOADED


def test_without_the_file_the_names_are_unknown(folder, capsys):
    assert study() == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "dataset: unknown 'blobs'" in said
    assert "a part of your own needs --with FILE, the file that registers it" in said


def test_without_own_parts_a_configuration_says_nothing_of_them(tmp_path):
    (tmp_path / "study.toml").write_text(TINY)
    (run, _) = final_runs(read_study(tmp_path / "study.toml"))
    assert "own_parts" not in run.config.as_plain()
    assert "optimizer" not in run.config.as_plain()["training"]


def test_a_claim_of_what_is_no_quantity_is_an_error_that_names_the_nearest(undisturbed):
    table = store.read_table(undisturbed)
    for name in ("test_acuracy", "sharpness_obsreved"):
        claim = Claim("X9", "s", "p", [Level(name, SGD, sign=1)])
        with pytest.raises(ValueError, match=f"claim 'X9' names '{name}'.*did you mean"):
            judge(table, [claim])
    judge(table, [Claim("X9", "s", "p", [Level("gradients", SGD, sign=1)])])


def test_a_study_that_chooses_an_unknown_claim_is_refused_before_its_first_run(tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(f'claims = ["L11"]\n{TINY}')
    assert cli.main(["study", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "did you mean 'L1'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_the_claims_that_the_study_chose_are_judged(undisturbed, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "study.toml").write_text('claims = ["g2", "L1"]\n' + (out / "study.toml").read_text())
    assert cli.main(["claims", str(out)]) == 0
    assert [each["id"] for each in json.loads((out / "claims.json").read_text())] == ["L1", "G2"]
    capsys.readouterr()
    assert cli.main(["claims", str(out), "--claim", "g2"]) == 0
    assert cli.main(["claims", str(out), "--claim", "m1"]) == 2
    assert "none of the claims that the study chose" in capsys.readouterr().err


def test_adamw_trains_as_torch_does(tmp_path):
    """After one epoch in one batch the weights are those of one step of AdamW from the same start."""
    text = TINY.replace(
        "epochs = 3", 'epochs = 1\nbatch_size = 200\noptimizer = "adamw"\nlearning_rate = 0.01'
    )
    out = finished_tiny(tmp_path, f"measured = false\n{text}")
    (path, _) = store.run_files(out)
    config = store.read_config(path).config
    from analysis.run.context import RunContext
    from analysis.run.run_data import load_run_data
    from analysis.run.training import new_model

    data = load_run_data(config, RunContext(tmp_path))
    model = new_model(config, data, "weights")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1e-3)
    torch.nn.functional.cross_entropy(model(data.train.inputs), data.labels.observed).backward()
    optimizer.step()
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    store.load_weights(path, model)
    for name, value in model.state_dict().items():
        assert value == pytest.approx(expected[name], abs=1e-5), name


def test_the_examples_of_the_page_run(folder, capsys, pytestconfig):
    page = (pytestconfig.rootpath / "docs/own_parts.md").read_text()
    examples = re.findall(r"```\{code-block\} python\n:caption: (\w+\.py)\n(.*?)```", page, flags=re.S)
    for name, example in examples:
        (folder / name).write_text(example)
    method = '[[methods]]\nname = "double-sam"\nrho = 0.1\n'
    text = TINY.replace("[[methods]]", f"{method}[[methods]]").replace("[noise]", '[noise]\nkind = "next"')
    (folder / "own.toml").write_text(f'claims = ["X1"]\n{text}')
    assert study("--with", "mine.py", "--with", "more.py") == 0, capsys.readouterr().err
    judged = json.loads((folder / "out/claims.json").read_text())
    (mine,) = [each for each in judged if each["id"] == "X1"]
    assert mine["effects"][0]["samples"] == 2
    table = store.read_table(folder / "out")
    assert (table["largest_weight"] > 0).all()
    assert (table["test_margin"] > 0).all()
