"""Training and whole studies on a GPU, against the CPU."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from analysis.engine import Resources
from analysis.engine.whole_study import run_study
from analysis.plan import read_study
from ncsam import Augmentation, Split, build_method, build_model, corrupt_labels, fit
from tests.analysis.tiny_study import TINY
from tests.cuda.device import DEVICE, IS_CUDA, NEEDS_DEVICE, cross_entropy, synchronizations

pytestmark = NEEDS_DEVICE


def network(dropout=0.0):
    layers = [nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(dropout), nn.Linear(7, 4)]
    return nn.Sequential(*layers).double()


SETTINGS = {
    "plain": {},
    "sam": {"rho": 0.1},
    "asam": {"rho": 0.5},
    "gsam": {"rho": 0.1},
    "friendly-sam": {"rho": 0.1},
    "bsam": {"rho": 0.1},
    "saner": {"rho": 0.1},
    "j-sam": {"rho": 0.1},
    "l-sam": {"rho": 0.1},
    # all of the batch is drawn: the CPU's and the GPU's random numbers differ
    "ncsam": {"rho": 0.1, "flip_ratio": 1.0, "strength": 0.1, "warmup": 0.0},
    "oracle-sam": {"rho": 0.1},
    "co-teaching": {"forget_rate": 0.3},
    "cores2": {},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_are_those_of_the_cpu_and_wait_for_nothing(name):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, 5, dtype=torch.float64, generator=generator)
    targets, clean = torch.randint(0, 4, (2, 16), generator=generator)
    weights, peers = network().state_dict(), network().state_dict()
    ends = []
    for device in (torch.device("cpu"), DEVICE):
        model, peer = network(), network()
        model.load_state_dict(weights)
        peer.load_state_dict(peers)
        method = build_method(
            name,
            model.to(device),
            cross_entropy,
            seed=0,
            clean_targets=clean,
            peer=peer.to(device),
            **SETTINGS[name],
        )
        method.progress = 0.5
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
        batch = [part.to(device) for part in (inputs, targets, torch.arange(16))]
        for _ in range(5):
            with synchronizations() as found:
                optimizer.zero_grad()
                method.backward(*batch)
                optimizer.step()
        assert not found
        ends.append(torch.cat([p.detach().flatten().cpu() for p in model.parameters()]))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-8, atol=1e-10)


def fitted(data_on, name="ncsam", device=DEVICE, dropout=0.0, epochs=3):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(101, 5, dtype=torch.float64, generator=generator)
    targets = torch.randint(0, 4, (101,), generator=generator)
    split = Split(pixels, targets).to(data_on)
    labels = corrupt_labels(targets, kind="symmetric", rate=0.4, seed=0)
    torch.manual_seed(3)
    model = network(dropout).to(device)
    method = build_method(name, model, cross_entropy, seed=0, clean_targets=labels.clean, **SETTINGS[name])
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    return fit(method, optimizer, split, labels, split, epochs=epochs, batch_size=20, seed=1)


@pytest.mark.parametrize("name", ["ncsam", "oracle-sam"])
def test_fit_gives_what_it_gives_on_the_cpu_wherever_the_data_are(name):
    truth = fitted("cpu", name, torch.device("cpu"))
    for data_on in ("cpu", DEVICE):
        found = fitted(data_on, name)
        for metric in ("train_loss", "test_loss", "test_accuracy", "memorized", "perturbation_norm"):
            np.testing.assert_allclose(found.metrics[metric], truth.metrics[metric], rtol=1e-8)


def test_dropout_draws_the_same_again_and_leaves_the_callers_random_state():
    first, second = fitted(DEVICE, dropout=0.5), fitted(DEVICE, dropout=0.5)
    np.testing.assert_allclose(first.metrics["train_loss"], second.metrics["train_loss"], rtol=1e-8)
    if IS_CUDA:
        # as `fitted` itself does
        torch.manual_seed(3)
        before = torch.cuda.get_rng_state(DEVICE)
        fitted(DEVICE, dropout=0.5)
        torch.testing.assert_close(torch.cuda.get_rng_state(DEVICE), before)


@pytest.mark.parametrize("name", ["ncsam", "cluster-ncsam"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_images_are_augmented_and_trained_on_with_checkpoints(tmp_path, name, dtype):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (200, 3, 16, 16), dtype=torch.uint8, generator=generator)
    targets = torch.arange(200) % 4
    mean, std = torch.full((3,), 127.0), torch.full((3,), 70.0)
    split = Split(pixels, targets, mean, std).to(DEVICE)
    labels = corrupt_labels(targets, kind="symmetric", rate=0.2, seed=0)
    rows = []
    for _ in range(2):
        model = build_model("resnet", (3, 16, 16), 4, seed=0).to(DEVICE)
        settings = {"rho": 0.1, "flip_ratio": 0.4, "strength": 0.1, "warmup": 0.1}
        method = build_method(name, model, cross_entropy, seed=0, clean_targets=labels.clean, **settings)
        method.passes.autocast_dtype = dtype
        history = fit(
            method,
            torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9),
            split,
            labels,
            split,
            epochs=2,
            batch_size=64,
            seed=0,
            augmentation=Augmentation(crop=2, flip=True, cutout=4),
            alignment_batches=1,
            max_gradient_norm=5.0,
            checkpoint=tmp_path / "state.ckpt",
        )
        assert not history.diverged
        rows.append(history.metrics["train_loss"])
    np.testing.assert_array_equal(rows[0], rows[1])


STUDY = (
    TINY.replace("epochs = 3", "epochs = 2\nprobe_epochs = [1, 2]\nprobe_samples = 40")
    .replace("seeds = [0, 1]", "seeds = [0]")
    .replace('[model]\nname = "mlp"\nhidden = [4]', '[model]\nname = "cnn"')
    + """
bound = true
surface_rates = [0.4]
surface_seeds = [0]
surface_steps = 5
surface_batch_norm = "recalibrate"
density_steps = 5
[[methods]]
name = "ncsam"
label = "NCSAM"
rho = 0.1
flip_ratio = 0.4
strength = 0.1
"""
)


def test_a_study_runs_whole(tmp_path: Path):
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    printed = io.StringIO()
    outcome = run_study(
        read_study(study),
        tmp_path / "out",
        Resources(device=str(DEVICE)),
        console=Console(file=printed, width=300),
    )
    assert not outcome.failed, printed.getvalue()
    assert len(outcome.table) == 2
