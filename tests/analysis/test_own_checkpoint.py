"""`ncsam measure CHECKPOINT --model ... --data ...`: the landscape of one's own model, without a script."""

import hashlib
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import landscape
from analysis import cli
from analysis.cli.checkpoint import load_weights
from analysis.cli.drawn_samples import drawn_samples
from analysis.cli.python_names import called
from landscape import Objective, top_eigenvalues
from ncsam import DATASETS

MODELS = """
import torch
from torch import nn


def build():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def data():
    draw = torch.Generator().manual_seed(2)
    return torch.randn(40, 3, generator=draw), torch.randint(2, (40,), generator=draw)


def batches():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=16)


def odd():
    inputs, targets = data()
    return inputs, targets[1:]


def triples():
    return [(*data(), 3)]


def regression():
    inputs, targets = data()
    return inputs, nn.functional.one_hot(targets, 2).float()


def number():
    return 3


def squares(outputs, targets):
    return (outputs - targets).square().mean()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with models, data and a checkpoint whose weights are not the initial ones."""
    (tmp_path / "own_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    weights = {name: 2 * value for name, value in model().state_dict().items()}
    torch.save(weights, "plain.pt")
    torch.save({"epoch": 3, "state_dict": weights}, "held.pt")
    torch.save({f"module.{name}": value for name, value in weights.items()}, "parallel.pt")
    torch.save({"_orig_mod." + name: value for name, value in weights.items()}, "compiled.pt")
    torch.save({f"module._orig_mod.{name}": value for name, value in weights.items()}, "both.pt")
    inputs, targets = data()
    np.savez("data.npz", inputs=inputs.numpy(), targets=targets.numpy())
    return tmp_path


def namespace():
    names = {}
    exec(MODELS, names)
    return names


def model():
    return namespace()["build"]()


def data():
    return namespace()["data"]()


def measure(checkpoint, *arguments):
    return cli.main(["measure", checkpoint, "--steps", "3", *arguments])


@pytest.mark.parametrize("checkpoint", ["plain.pt", "held.pt", "parallel.pt", "compiled.pt", "both.pt"])
@pytest.mark.parametrize("source", ["own_models:data", "own_models:batches", "data.npz"])
def test_results_are_those_of_the_checkpoints_weights(checkpoint, source, folder, capsys):
    assert measure(checkpoint, "--model", "own_models:build", "--data", source) == 0
    text = capsys.readouterr().out
    measured = model()
    measured.load_state_dict(torch.load(folder / "plain.pt"))
    expected = top_eigenvalues(Objective(measured, nn.CrossEntropyLoss(), data()), 3, seed=0)
    stored = landscape.load(folder / f"{checkpoint}.landscape.h5", "top_eigenvalues")
    assert stored.values == pytest.approx(expected.values, rel=1e-5)
    assert f"{expected.values[0]:.4g}" in text
    assert landscape.load(folder / f"{checkpoint}.landscape.h5", "plane").loss.shape == (3, 3)
    assert (folder / f"{checkpoint}.landscape.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_names_the_model_and_another_loss_is_taken(folder, capsys):
    arguments = ("--model", "own_models.py:build", "--data", "own_models:regression")
    assert measure("plain.pt", *arguments, "--loss", "own_models:squares", "--out", "squares.h5") == 0
    assert "nat" not in capsys.readouterr().out
    assert landscape.load("squares.h5", "plane").loss_unit == ""


SOURCES = ("own_models:data", "own_models:batches", "data.npz")


@pytest.mark.parametrize("source", SOURCES)
def test_of_more_data_random_samples_are_measured_which_the_file_names(source, folder, capsys):
    arguments = ("--model", "own_models:build", "--data", source, "--samples", "20", "--seed", "3")
    assert measure("plain.pt", *arguments) == 0
    assert "20 of 40 samples, drawn at random with seed 3" in capsys.readouterr().out
    with h5py.File("plain.pt.landscape.h5") as file:
        drawn = {name: file["measured_samples"][name][()] for name in ("positions", "total", "seed")}
        about = dict(file.attrs)
    digest = hashlib.sha256((folder / "plain.pt").read_bytes()).hexdigest()
    assert (about["model"], about["data"], about["loss"]) == ("own_models:build", source, "cross-entropy")
    assert (about["checkpoint"], about["checkpoint_sha256"], about["seed"]) == ("plain.pt", digest, 3)
    assert (drawn["total"], drawn["seed"], len(set(drawn["positions"]))) == (40, 3, 20)
    assert drawn["positions"].max() >= 20, "the first samples are no random ones"
    measured = model()
    measured.load_state_dict(torch.load(folder / "plain.pt"))
    inputs, targets = data()
    part = inputs[drawn["positions"]], targets[drawn["positions"]]
    expected = top_eigenvalues(Objective(measured, nn.CrossEntropyLoss(), part), 3, seed=0)
    stored = landscape.load("plain.pt.landscape.h5", "top_eigenvalues")
    assert stored.values == pytest.approx(expected.values, rel=1e-3)


def test_a_seed_draws_the_same_samples_from_data_in_any_form(folder):
    drawn = [drawn_samples(source, None, 20, 1).positions.tolist() for source in SOURCES]
    assert drawn[0] == drawn[1] == drawn[2]
    assert drawn[0] != drawn_samples(SOURCES[0], None, 20, 2).positions.tolist()


@pytest.mark.parametrize("source", SOURCES)
def test_every_sample_is_drawn_equally_often(source, folder):
    draws = 1000
    positions = [drawn_samples(source, None, 10, seed).positions for seed in range(draws)]
    counts = torch.cat(positions).bincount(minlength=40)
    # a count is binomial, so that 40 counts stay within five standard deviations but for 1 time in 40,000
    assert ((counts - draws / 4).abs() < 5 * (draws * 3 / 16) ** 0.5).all()


def test_all_samples_are_measured_where_there_are_no_more(folder, capsys):
    assert measure("plain.pt", "--model", "own_models:build", "--data", "own_models:batches") == 0
    assert "parameters, 40 samples\n" in capsys.readouterr().out


def test_data_that_never_end_are_refused(folder):
    (folder / "endless.py").write_text(
        "import itertools, torch\n"
        "def data():\n    return itertools.repeat((torch.ones(1, 3), torch.zeros(1, dtype=torch.int64)))\n"
    )
    with pytest.raises(ValueError, match=r"never to end; .*islice"):
        drawn_samples("endless.py:data", None, 20, 0)


GOOD = ("--model", "own_models:build", "--data", "own_models:data")


@pytest.mark.parametrize(
    ("checkpoint", "arguments", "says"),
    [
        ("none.pt", GOOD, "checkpoint: none.pt does not exist"),
        ("own_models.py", GOOD, "checkpoint: own_models.py is no file of weights"),
        ("plain.pt", ("--model", "own_models:biuld", *GOOD[2:]), "did you mean 'build'?"),
        ("plain.pt", ("--model", "own_models", *GOOD[2:]), "must look like module:function"),
        ("plain.pt", ("--model", "no_such_module:build", *GOOD[2:]), "cannot import no_such_module"),
        ("plain.pt", ("--model", "own_models:number", *GOOD[2:]), "returns int, not a torch module"),
        ("plain.pt", (*GOOD[:2], "--data", "digit"), "did you mean 'digits'?"),
        ("plain.pt", (*GOOD[:2], "--data", "none.npz"), "--data: none.npz does not exist"),
        ("plain.pt", GOOD[:2], "--data: name a data set"),
        ("plain.pt", GOOD[2:], "needs --model"),
        ("plain.pt", (*GOOD, "--samples", "0"), "--samples: must be at least 1"),
        ("plain.pt", (*GOOD, "--seed", "-1"), "--seed: must be from 0"),
        ("plain.pt", (*GOOD, "--steps", "1"), "--steps: must be at least 2, got 1"),
        *(
            ("plain.pt", (*GOOD, option, value), f"{option}: is for a study's folder")
            for option, value in (
                ("--only", "curvature"),
                ("--study", "study.toml"),
                ("--engine", "serial"),
                ("--workers", "2"),
                ("--threads", "2"),
                ("--scheduler", "tcp://host:8786"),
            )
        ),
        ("plain.pt", (*GOOD[:2], "--data", "own_models:odd"), "--data: 39 targets for 40 inputs"),
        (
            "plain.pt",
            (*GOOD[:2], "--data", "own_models:triples"),
            "--data: batch 0 must be (inputs, targets)",
        ),
        ("other.pt", GOOD, "is of another model than --model builds"),
        ("list.pt", GOOD, "holds no state_dict"),
        ("whole.pt", GOOD, "save the weights: torch.save(model.state_dict(), ...)"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(checkpoint, arguments, says, folder, capsys):
    torch.save({"weight": torch.ones(2)}, "other.pt")
    torch.save([1, 2], "list.pt")
    torch.save(model(), "whole.pt")
    assert measure(checkpoint, *arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "[1m" not in error
    assert error.count("\n") == 1


def test_along_earlier_checkpoints_it_draws_a_picture_that_moves_and_a_page_with_a_slider(folder, capsys):
    torch.save(model().state_dict(), "first.pt")
    command = ["measure", "plain.pt", "--along", "first.pt", "--model", "own_models:build"]
    assert cli.main([*command, "--data", "own_models:data", "--steps", "3"]) == 0
    assert "along the training: plain.pt.landscape.gif, plain.pt.landscape.html" in capsys.readouterr().out
    with Image.open("plain.pt.landscape.gif") as held:
        assert held.n_frames == 2
    page = (folder / "plain.pt.landscape.html").read_text()
    assert re.findall(r'"label":"(\w+\.pt|all)"', page) == ["first.pt", "plain.pt"]
    last = landscape.load("plain.pt.landscape.h5", "along/0001")
    assert np.array_equal(last.loss, landscape.load("plain.pt.landscape.h5", "plane").loss)


def test_of_two_calls_the_file_holds_the_surfaces_of_the_later_one(folder, pytestconfig):
    torch.save(model().state_dict(), "first.pt")
    whole = ["plain.pt", *GOOD]
    assert measure(*whole, "--along", "first.pt", "first.pt") == 0
    assert measure(*whole, "--along", "first.pt") == 0
    with h5py.File("plain.pt.landscape.h5") as file:
        names = {key: each.attrs["checkpoint"] for key, each in file["along"].items()}
        groups = set(file)
    assert names == {"0000": "first.pt", "0001": "plain.pt"}
    page = (pytestconfig.rootpath / "docs/results.md").read_text().split("## The results of a checkpoint")[1]
    assert groups == set(re.findall(r"^\| `(\w+)", page.split("\n## ")[0], re.M))
    # those of an earlier call may be of other samples than `measured_samples` says
    assert measure(*whole) == 0
    with h5py.File("plain.pt.landscape.h5") as file:
        assert "along" not in file


def test_a_failure_leaves_the_results_of_the_call_before_as_they_were(folder, monkeypatch):
    assert measure("plain.pt", *GOOD) == 0
    before = (folder / "plain.pt.landscape.h5").read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("analysis.cli.drawn_samples.DrawnSamples.write_to", fail)
    assert measure("plain.pt", *GOOD, "--seed", "1") == 130
    assert (folder / "plain.pt.landscape.h5").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--out", "none/x.h5"), "--out: the folder of none/x.h5 does not exist; make it first"),
        (("--out", "x.npz"), "--out: x.npz would hold HDF5; name it x.h5"),
        (("--out", "x.png"), "--out: x.png would hold HDF5; name it x.h5"),
        (("--out", "own_models.py"), "--out: own_models.py is not a whole HDF5 file; choose another"),
        (("--along", "none.pt"), "--along: none.pt does not exist"),
        (("--along", "other.pt"), "--along: other.pt is of another model than --model builds"),
    ],
)
def test_what_would_fail_after_the_measuring_is_refused_before(options, says, folder, capsys, monkeypatch):
    torch.save({"weight": torch.ones(2)}, "other.pt")
    monkeypatch.setattr("analysis.cli.checkpoint.top_eigenvalues", None)
    assert measure("plain.pt", *GOOD, *options) == 2
    assert says in capsys.readouterr().err


def test_a_model_with_a_part_of_a_wrappers_name_takes_its_own_weights():
    def wrapped():
        return nn.ModuleDict({"module": nn.Linear(2, 2)})

    for prefix in ("", "module.", "_orig_mod.module."):
        weights, loaded = wrapped().state_dict(), wrapped()
        torch.save({prefix + name: value for name, value in weights.items()}, "wrapped.pt")
        load_weights(Path("wrapped.pt"), loaded)
        assert torch.equal(loaded["module"].weight, weights["module.weight"])


def test_a_file_may_have_the_name_of_a_module_of_python(folder):
    import queue

    (folder / "queue.py").write_text("def build():\n    return 'mine'\n")
    assert called("--model", "queue.py:build") == "mine"
    assert sys.modules["queue"] is queue


def test_two_files_of_one_name_are_two_modules_and_each_is_executed_once(folder):
    for place in ("one", "other"):
        (folder / place).mkdir()
        (folder / place / "same.py").write_text(f"made = []\ndef build():\n    return {place!r}, made\n")
    (one, made), (other, _) = (called("--model", f"{place}/same.py:build") for place in ("one", "other"))
    assert (one, other) == ("one", "other")
    assert called("--model", "one/same.py:build")[1] is made


def test_a_data_set_of_a_file_that_registers_it_is_measured(folder, capsys):
    (folder / "mine.py").write_text(
        "import torch\nfrom ncsam import DATASET_REGISTRY, make_dataset\nfrom own_models import data\n"
        "@DATASET_REGISTRY.register('mine')\n"
        "def mine(folder):\n    return make_dataset('mine', data(), data())\n"
    )
    try:
        assert measure("plain.pt", *GOOD[:2], "--data", "mine", "--with", "mine.py") == 0
    finally:
        DATASETS.pop("mine")
    assert "parameters, 40 samples" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["along", "samples", "seed", "steps", "data", "loss", "out"])
def test_an_option_of_a_checkpoint_is_refused_for_a_study(option, folder, capsys):
    assert cli.main(["measure", "results", f"--{option}", "0"]) == 2
    assert f"--{option}: is for a checkpoint of your own" in capsys.readouterr().err
