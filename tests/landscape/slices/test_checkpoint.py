"""A surface that is killed goes on from its finished points, to the same bits."""

import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, line, random_directions, surface
from tests.conftest import build

cross_entropy = nn.CrossEntropyLoss()

SCRIPT = """
import sys, time
from tests.landscape.slices.test_checkpoint import objective_of, plane
def slowly(done, total):
    time.sleep(0.05)
plane(objective_of(), sys.argv[1], progress=slowly, checkpoint_seconds=0.0)
"""


def objective_of(name="relu-mlp", shift=0.0, loss_fn=cross_entropy):
    model, inputs, targets = build(name)
    with torch.no_grad():
        model[1].weight.add_(shift)
    return Objective(model.float(), loss_fn, (inputs.float(), targets))


def plane(objective, checkpoint=None, **options):
    directions = random_directions(objective, 2, seed=1)
    options = {"steps": 21, **options}
    return surface(objective, directions, checkpoint=checkpoint, **options)


def test_after_a_kill_the_same_call_goes_on_to_the_bit_same_result(tmp_path, pytestconfig):
    path = tmp_path / "plane.h5"
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath)}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], env=environment)
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    assert_same(plane(objective_of(), path), plane(objective_of(), tmp_path / "other.h5"))


def assert_same(first, second):
    for name, value in vars(first).items():
        np.testing.assert_array_equal(value, getattr(second, name), err_msg=name)


def count_calls(objective):
    calls = []
    inner = objective.loss_fn
    objective.loss_fn = lambda z, y: (calls.append(1), inner(z, y))[1]
    return calls


def test_finished_points_are_not_evaluated_again(tmp_path):
    path = tmp_path / "plane.h5"
    first = plane(objective_of(), path)
    objective = objective_of()
    calls = count_calls(objective)
    again = plane(objective, path)
    # only the model itself, and what the passes are looked at with
    assert len(calls) < 10
    np.testing.assert_array_equal(first.loss, again.loss)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_file_that_an_exception_left_is_gone_on_from(adaptive, tmp_path):
    path = tmp_path / "plane.h5"

    def stop(done, total):
        if done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plane(objective_of(), path, checkpoint_seconds=0.0, progress=stop, adaptive=adaptive)
    assert [name.name for name in tmp_path.iterdir()] == ["plane.h5"]
    resumed = plane(objective_of(), path, adaptive=adaptive)
    assert_same(resumed, plane(objective_of(), tmp_path / "other.h5", adaptive=adaptive))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda: plane_of(objective_of(shift=0.1)), "weights"),
        (lambda: plane_of(objective_of(), steps=19), "settings"),
        (lambda: plane_of(objective_of(), extent=0.5), "settings"),
        (lambda: plane_of(objective_of(), samples=20), "data"),
        (lambda: plane_of(objective_of(loss_fn=nn.CrossEntropyLoss(label_smoothing=0.1))), "loss"),
        (lambda: (line, objective_of(), random_directions(objective_of(), 1, seed=1), {}), "directions"),
    ],
)
def test_a_checkpoint_of_another_surface_is_refused(change, what, tmp_path):
    path = tmp_path / "plane.h5"
    plane(objective_of(), path)
    call, objective, directions, options = change()
    with pytest.raises(ValueError, match=f"^checkpoint: .* is of (other|another) .*{what}"):
        call(objective, directions, checkpoint=path, **options)


def test_at_a_network_that_memorized_all_a_checkpoint_of_another_loss_is_refused(tmp_path):
    """All losses are nearly 0 at the center there."""
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-9.0, 0, 0, 0], [9.0, 0, 0, 0]]))
    inputs = torch.tensor([[3.0, 1, 0, 1], [-3.0, 0, 1, 1]])
    data = inputs, torch.tensor([1, 0])
    path = tmp_path / "plane.h5"
    plane(Objective(model, cross_entropy, data), path, extent=5.0)
    threefold = Objective(model, lambda outputs, targets: 3 * cross_entropy(outputs, targets), data)
    assert threefold.value() < 1e-6
    with pytest.raises(ValueError, match="^checkpoint: .* is of another loss"):
        plane(threefold, path, extent=5.0)


def test_a_model_in_bfloat16_has_a_checkpoint_too(tmp_path):
    model, inputs, targets = build("relu-mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), dtype=torch.bfloat16)
    first = plane(objective, tmp_path / "plane.h5", steps=3)
    assert_same(first, plane(objective, tmp_path / "plane.h5", steps=3))
    assert_same(first, plane(objective, steps=3))


def test_a_checkpoint_over_equal_weights_of_another_layer_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 2))
    data = (torch.eye(3).repeat(2, 1), torch.tensor([0, 1, 0, 1, 1, 0]))
    first, second = (
        Objective(model, cross_entropy, data, parameters=lambda name, layer=layer: name == f"{layer}.weight")
        for layer in (1, 3)
    )
    options = {"steps": 5, "checkpoint": tmp_path / "line.h5"}
    line(first, torch.ones(4), **options)
    with pytest.raises(ValueError, match="^checkpoint: .* is of other weights"):
        line(second, torch.ones(4), **options)


def plane_of(objective, **options):
    return surface, objective, random_directions(objective, 2, seed=1), {"steps": 21, **options}


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not HDF5")
    with pytest.raises(ValueError, match="^checkpoint"):
        plane(objective_of(), path)
    assert path.read_text() == "not HDF5"


def put(group, name, **options):
    del group[name]
    group.create_dataset(name, **options)


@pytest.mark.parametrize(
    "change",
    [
        lambda g: put(g, "values", data=1.0),
        lambda g: put(g, "values", data=np.zeros((2, 1, 1))),
        lambda g: put(g, "multiples", data="text"),
        lambda g: put(g, "center", data=np.zeros(1)),
        lambda g: put(g, "values", shape=(1 << 20, 1 << 20, 1), chunks=(1024, 1024, 1), dtype="f8"),
    ],
)
def test_a_file_of_other_contents_is_refused_before_it_is_read(change, tmp_path):
    path = tmp_path / "plane.h5"
    plane(objective_of(), path, steps=3)
    with h5py.File(path, "r+") as file:
        change(file["finished"])
    with pytest.raises(ValueError, match="^checkpoint: .* is not a whole checkpoint of a surface"):
        plane(objective_of(), path, steps=3)


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match=r"^checkpoint: .*fifo is not a file"):
        plane(objective_of(), tmp_path / "fifo")


def test_a_folder_that_is_not_there_is_said_before_the_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="^checkpoint: the folder of"):
        plane(objective_of(), tmp_path / "none/plane.h5")
