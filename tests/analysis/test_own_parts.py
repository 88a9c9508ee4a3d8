"""`--with mine.py`: parts of one's own in a study, whose file is part of the fingerprint and not needed to read."""

import contextlib
import json
import re
import shutil
from collections import OrderedDict

import pytest
import torch

from analysis import cli, store
from analysis.claims import CLAIMS, QUANTITIES, SGD, Claim, Level, judge
from analysis.cli import commands
from analysis.plan import final_runs, own_parts, read_study
from analysis.run.measurements import MEASURES
from ncsam import DATASETS, LOSSES, METHODS, MODELS, NOISE_KINDS
from tests.analysis.tiny_study import TINY, finished_tiny

REGISTRIES = (METHODS, MODELS, DATASETS, LOSSES, NOISE_KINDS, MEASURES, CLAIMS, QUANTITIES, own_parts.LOADED)

MINE = '''
from __future__ import annotations

import torch
from torch import nn

from analysis.claims import Claim, Level, Quantity, Variant, register, register_quantity
from analysis.run.own_measures import register_measure
from ncsam import (
    DATASET_REGISTRY, LOSS_REGISTRY, METHOD_REGISTRY, MODEL_REGISTRY, NOISE_REGISTRY, SAM, Corruption, NoiseKind,
    make_dataset,
)


@METHOD_REGISTRY.register("scaled-sam")
class ScaledSAM(SAM):
    """SAM with a radius that is multiplied."""

    def __init__(self, model: nn.Module, loss_fn, *, rho: float, factor: float = 2.0) -> None:
        super().__init__(model, loss_fn, rho=factor * rho)


@MODEL_REGISTRY.register("linear")
def linear(input_shape, num_classes, *, bias: int = 1):
    """One layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), num_classes, bias=bool(bias)))


@DATASET_REGISTRY.register("blobs")
def blobs(folder):
    """Two clouds."""
    draw = torch.Generator().manual_seed(0)
    targets = torch.arange(200) % 2
    pixels = torch.randn(200, 3, generator=draw) + 2 * targets[:, None]
    return make_dataset("blobs", (pixels[:120], targets[:120]), (pixels[120:], targets[120:]))


@LOSS_REGISTRY.register("brier")
class Brier(nn.Module):
    """The squared error of the probabilities."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs, targets):
        """The mean."""
        truth = nn.functional.one_hot(targets, outputs.shape[1])
        return self.weight * (outputs.softmax(1) - truth).square().sum(1).mean()


def first_ones(clean, classes, rate, generator, *, shift: int = 1):
    """The first samples are wrong."""
    observed = clean.clone()
    wrong = round(rate * len(clean))
    observed[:wrong] = (observed[:wrong] + shift) % classes
    return Corruption(observed)


NOISE_REGISTRY.register("first")(NoiseKind(first_ones))


def margin(subject):
    """How sure the network is."""
    outputs = subject.model(subject.data.held_out.inputs).softmax(1)
    return {"mean_confidence": outputs.max(1).values.mean().item()}


register_measure("confidence", ["mean_confidence"], margin)
register_quantity("confidence", Quantity("mean confidence on test data", ("mean_confidence",), "share", margin=0.01))
register(
    Claim(
        id="X1",
        statement="Scaled SAM is confident.",
        place="here",
        predictions=[Level("confidence", Variant("scaled SAM", "scaled-sam"), sign=1)],
    )
)
'''

STUDY = """
name = "own"
dataset = "blobs"
seeds = [0]
claims = ["x1", "L1"]
[model]
name = "linear"
[noise]
kind = "first"
rates = [0.25]
shift = 1
[training]
epochs = 2
optimizer = "adamw"
alignment_batches = 0
[[methods]]
name = "scaled-sam"
label = "Scaled"
rho = [0.1, 0.2]
factor = 3.0
loss = "brier"
[measure]
samples = 20
eigenvalues = 1
trace_max_products = 10
sharpness_steps = 2
"""


@contextlib.contextmanager
def forgotten_at_the_end():
    """Puts back what is registered meanwhile; the function that is given forgets it at once, as a new process would."""
    before = [dict(registry) for registry in REGISTRIES]

    def forget():
        for registry, content in zip(REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(content)

    yield forget
    forget()


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


def study(*arguments, engine="serial"):
    return cli.main(["study", "own.toml", "--out", "out", "--engine", engine, "--threads", "1", *arguments])


def test_every_kind_of_part_works_in_a_study(study_of_own_parts):
    assert_every_part_worked(study_of_own_parts)


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
    assert [each["id"] for each in json.loads((folder / "out/claims.json").read_text())] == ["L1", "X1"]


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


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module", "--with: mine.py fails: ModuleNotFoundError"),
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


def test_the_example_of_the_page_runs(folder, capsys, pytestconfig):
    page = (pytestconfig.rootpath / "docs/own_parts.md").read_text()
    (example,) = re.findall(r"```\{code-block\} python\n:caption: mine.py\n(.*?)```", page, flags=re.S)
    (folder / "mine.py").write_text(example)
    method = '[[methods]]\nname = "double-sam"\nrho = 0.1\n'
    text = TINY.replace("[[methods]]", f"{method}[[methods]]")
    (folder / "own.toml").write_text(f'claims = ["X1"]\n{text}')
    assert study("--with", "mine.py") == 0, capsys.readouterr().err
    judged = json.loads((folder / "out/claims.json").read_text())
    (mine,) = [each for each in judged if each["id"] == "X1"]
    assert mine["effects"][0]["samples"] == 2
