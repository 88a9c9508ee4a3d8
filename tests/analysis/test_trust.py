"""Run files that are broken, hostile, older or newer: none is believed, none is executed."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from analysis import cli, store
from analysis.store import run_file
from ncsam import load_dataset
from ncsam.checkpoint import CheckpointError, load_checkpoint
from ncsam.seal import LENGTH, sealed
from tests.analysis.small_study import assert_same_results
from tests.analysis.tiny_study import TINY, run_tiny

FIRST = "runs/digits/symmetric-0.4/sgd/seed0.h5"
SCHEMA_1 = Path(__file__).parent / "files/schema1.h5"
"""Written by version 0.1.0."""


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def rewrite(path, change):
    """Changes a run file by h5py and seals it anew, as somebody would who means it."""
    with h5py.File(path, "a") as file:
        change(file)
    path.write_bytes(sealed(path.read_bytes()))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda path: flip(path, path.stat().st_size // 2), "bytes of it have changed"),
        (lambda path: flip(path, 3), "bytes of it have changed"),
        (lambda path: flip(path, path.stat().st_size - 5), "bytes of it have changed"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has lost its checksum"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "not a whole HDF5 file"),
        (lambda path: path.write_bytes(b""), "not a whole HDF5 file"),
    ],
    ids=["a bit", "a bit of the header", "a bit of the checksum", "last byte lost", "cut short", "empty"],
)
def test_a_damaged_run_is_set_aside_with_a_word_and_done_again(undisturbed, tmp_path, damage, word):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    other = (out / FIRST).with_name("seed1.h5")
    untouched = other.stat().st_mtime_ns
    damage(out / FIRST)
    outcome, printed = run_tiny(tmp_path, out)
    assert not outcome.failed
    assert word in printed
    assert "set aside as seed0.h5.broken-1, its run is done again" in printed
    assert (out / FIRST).with_name("seed0.h5.broken-1").exists()
    assert_same_results(out / FIRST, undisturbed / FIRST)
    assert other.stat().st_mtime_ns == untouched


def test_the_objects_of_a_run_are_checked_once_and_those_of_other_bytes_again(
    undisturbed, tmp_path, monkeypatch
):
    checked = []
    monkeypatch.setattr(run_file, "_CHECKED", set())
    monkeypatch.setattr(run_file, "check_trusted", lambda _, path: checked.append(path))
    path = shutil.copy(undisturbed / FIRST, tmp_path / "run.h5")

    def times_checked_after_two_readings():
        for _ in range(2):
            with run_file.opened(path):
                pass
        return len(checked)

    assert times_checked_after_two_readings() == 1
    rewrite(path, link_out)
    assert times_checked_after_two_readings() == 2


def link_out(file):
    file["history/extra"] = h5py.ExternalLink("/etc/passwd", "/")


def keep_data_elsewhere(file):
    file["history"].create_dataset("extra", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def keep_data_virtually(file):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "data", (4,))
    file["history"].create_virtual_dataset("extra", layout)


def claim_too_much(file):
    del file["history/train_loss"]
    file["history"].create_dataset("train_loss", (10**13,), "f8", chunks=(1024,))


def need_a_plugin(file):
    file["history"].create_dataset("extra", data=np.arange(100), compression="lzf")


def hold_objects(file):
    file["history"].create_dataset("extra", (2,), h5py.ref_dtype)


def bite_its_tail(file):
    file["history/extra"] = file["/"]


@pytest.mark.parametrize(
    "change",
    [
        link_out,
        keep_data_elsewhere,
        keep_data_virtually,
        claim_too_much,
        need_a_plugin,
        hold_objects,
        bite_its_tail,
    ],
)
def test_a_hostile_file_with_a_right_checksum_is_not_read(undisturbed, tmp_path, change, capsys):
    path = tmp_path / "run.h5"
    shutil.copy(undisturbed / FIRST, path)
    rewrite(path, change)
    with pytest.raises(store.BrokenFileError, match="is not to be trusted"):
        store.read_record(path)
    assert cli.main(["info", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "config",
    ["{", "[" * 100_000, "{}", "null", '{"noise": 1}'],
    ids=["cut", "deep", "empty", "null", "wrong"],
)
def test_a_configuration_that_makes_no_sense_is_one_clear_line(undisturbed, tmp_path, config, capsys):
    path = tmp_path / "run.h5"
    shutil.copy(undisturbed / FIRST, path)
    rewrite(path, lambda file: file["config"].attrs.__setitem__("config", config))
    assert cli.main(["info", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "does not hold what a run's file holds" in error


def test_a_file_of_a_later_version_is_refused_and_left_alone(undisturbed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    rewrite(out / FIRST, lambda file: file["config"].attrs.__setitem__("schema_version", 99))
    with pytest.raises(store.StoreError, match=r"has schema 99; this version of ncsam reads up to"):
        run_tiny(tmp_path, out)
    assert not list(out.rglob("*.broken*"))


def test_a_file_of_version_0_1_counts_as_finished_and_its_table_reads_as_today(tmp_path):
    out = tmp_path / "out"
    (out / FIRST).parent.mkdir(parents=True)
    shutil.copy(SCHEMA_1, out / FIRST)
    (out / "study.toml").write_text('name = "tiny"\ndataset = "digits"\n')
    with h5py.File(SCHEMA_1) as file:
        config = json.loads(file["config"].attrs["config"])
        accuracy = file["history/test_accuracy"][-1]
    assert "loss" not in config["method"]
    text = TINY.replace("train_samples = 200\ntest_samples = 100\nseeds = [0, 1]", "seeds = [0]")
    text = text.replace("epochs = 3\nalignment_batches = 0", "epochs = 2").replace(
        "samples = 20", "samples = 50"
    )
    text = text.replace("max_products = 10", "max_products = 20").replace(
        "sharpness_steps = 2", "sharpness_steps = 5"
    )
    outcome, printed = run_tiny(tmp_path, out, text)
    assert "1 of 1 runs are there" in printed
    assert f"{out / FIRST} is of an earlier version and had no checksum; it has one from now on" in printed
    assert outcome.table["test_accuracy"].tolist() == [accuracy]
    assert outcome.table["loss"].tolist() == ["cross-entropy"]

    # from here on no changed byte is believed
    assert (out / FIRST).read_bytes()[:-LENGTH] == SCHEMA_1.read_bytes()
    assert "no checksum" not in run_tiny(tmp_path, out, text)[1]
    flip(out / FIRST, SCHEMA_1.read_bytes().index(b'"plain"') + 1)
    with pytest.raises(store.BrokenFileError, match="bytes of it have changed"):
        store.read_record(out / FIRST)


@pytest.mark.parametrize(
    "word",
    [b'"plain"', b'"learning_rate"', b'"schema_version"'.strip(b'"')],
    ids=["value", "key", "attribute"],
)
def test_a_file_of_version_0_1_with_a_changed_configuration_is_set_aside(tmp_path, word):
    path = tmp_path / "seed0.h5"
    shutil.copy(SCHEMA_1, path)
    flip(path, path.read_bytes().index(word) + 1)
    with pytest.raises(store.BrokenFileError, match=f"^file: {path} "):
        store.read_record(path)


def test_the_links_of_the_index_stay_in_the_folder(undisturbed):
    with h5py.File(undisturbed / "study.h5") as file:
        links = file["links/runs/digits/symmetric-0.4/sgd"]
        found = [links.get(name, getlink=True).filename for name in links]
    assert found == [FIRST, FIRST.replace("seed0", "seed1")]


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_with_code_in_it_is_not_executed(tmp_path):
    marker = tmp_path / "executed"
    torch.save({"fingerprint": Touch(marker)}, tmp_path / "hostile.ckpt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "hostile.ckpt", "", {}, *hollow_training())
    assert not marker.exists()
    torch.load(tmp_path / "hostile.ckpt", weights_only=False)
    assert marker.exists(), "the file was not hostile"


def hollow_training():
    from ncsam import Plain
    from ncsam.checkpoint import Trained
    from ncsam.hidden_state import HiddenState
    from ncsam.ranks import Ranks

    model = torch.nn.Linear(1, 1)
    method = Plain(model, torch.nn.MSELoss())
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    return Trained(method, optimizer, None, None, HiddenState.of(method)), Ranks.of(model)


def test_stored_weights_in_a_new_model_give_the_stored_accuracy_exactly(undisturbed):
    from ncsam import build_model, predict

    data = load_dataset("digits", train_samples=200, test_samples=100)
    model = build_model("mlp", data.input_shape, 10, seed=5, hidden=[4])
    store.load_weights(undisturbed / FIRST, model)
    accuracy = (predict(model, data.test).argmax(1) == data.test.targets).double().mean().item()
    assert accuracy == store.scalars(undisturbed / FIRST)["test_accuracy"]


def test_paths_may_be_words_as_for_landscape_load(undisturbed):
    from ncsam import build_model

    store.load_weights(str(undisturbed / FIRST), build_model("mlp", (1, 8, 8), 10, seed=5, hidden=[4]))
    assert store.read_table(str(undisturbed)).equals(store.read_table(undisturbed))
    assert store.read_histories(str(undisturbed)).equals(store.read_histories(undisturbed))
