"""fit() on two ranks: the same history on both, the same training as one process where the batches are the same."""

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

from ncsam import (
    METRICS,
    NCSAM,
    SAM,
    EarlyLearningRegularization,
    Plain,
    RegCE,
    Split,
    StochasticLabelNoise,
    corrupt_labels,
    fit,
)
from ncsam.ranks import Ranks, Share
from tests.ranks import joined, on_two_ranks

INPUTS = torch.randn(150, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.randint(3, (150,), generator=torch.Generator().manual_seed(1))
TRAIN, HELD_OUT = Split(INPUTS[:96], TARGETS[:96]), Split(INPUTS[96:], TARGETS[96:])
LABELS = corrupt_labels(TARGETS[:96], rate=0.4, seed=0)
loss_fn = nn.CrossEntropyLoss()


def network(norm=False):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        middle = [nn.BatchNorm1d(8), nn.Dropout(0.3)] if norm else []
        return nn.Sequential(nn.Linear(6, 8), *middle, nn.Tanh(), nn.Linear(8, 3)).double()


def training(kind, wrap=lambda model: model, rank=0, epochs=2, batch_size=16, part=None, **options):
    """(history, weights) of a training; `part`: of the samples."""
    part = torch.arange(96) if part is None else part
    model = wrap(network(norm=kind in ("ncsam", "regce")))
    method = {
        "plain": lambda: Plain(model, loss_fn),
        "sam": lambda: SAM(model, loss_fn, rho=0.1),
        "elr": lambda: Plain(model, EarlyLearningRegularization(len(part), 3)),
        "sln": lambda: Plain(model, StochasticLabelNoise(len(part), 3)),
        "regce": lambda: RegCE(model, loss_fn),
        "ncsam": lambda: NCSAM(model, loss_fn, rho=0.1, flip_ratio=0.4, strength=0.1, seed=rank),
    }[kind]()
    method.passes.average_over_ranks = kind == "sam"
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    history = fit(
        method, optimizer, TRAIN.take(part), LABELS.take(part), HELD_OUT,
        epochs=epochs, batch_size=batch_size, seed=0, **options,
    )  # fmt: skip
    state = {**method.passes.module.state_dict(), **getattr(method.loss_fn, "state_dict", dict)()}
    state.pop("_extra_state", None)
    if kind == "regce":
        averages = method.average.network.state_dict()
        state |= {f"average.{name}": tensor for name, tensor in averages.items()}
    return history.metrics, copy.deepcopy(state)


def outcomes(tmp_path, name):
    found = [torch.load(tmp_path / f"{name}{rank}.pt", weights_only=False) for rank in range(2)]
    for metric in METRICS:
        np.testing.assert_array_equal(found[0][0][metric], found[1][0][metric], err_msg=metric)
    for key, tensor in found[0][1].items():
        assert torch.equal(tensor, found[1][1][key]), key
    return found[0]


RESUMED = ("elr", "ncsam")


class Killed(Exception):
    pass


def _kill(epoch, *_):
    if epoch == 1:
        raise Killed


def _rank(rank, port, folder):
    with joined(rank, port):
        for kind in ("plain", "sam", "elr", "ncsam", "sln", "regce"):
            options = {"wrap": DistributedDataParallel, "rank": rank}
            torch.save(training(kind, **options), f"{folder}/{kind}{rank}.pt")
            if kind not in RESUMED:
                continue
            path = f"{folder}/{kind}.ckpt"
            with pytest.raises(Killed):
                training(kind, **options, checkpoint=path, on_epoch=_kill)
            torch.save(training(kind, **options, checkpoint=path), f"{folder}/{kind}-resumed{rank}.pt")
        own = torch.arange(96).view(2, 48)[rank]
        torch.save(training("plain", **options, part=own), f"{folder}/own{rank}.pt")
        messages = []
        unequal = own[: 48 - 20 * rank]
        for change in (
            {"part": unequal},
            {"part": torch.arange(1)},
            {"max_gradient_norm": None, "epochs": 2 if rank else 0},
            {"checkpoint": f"{folder}/{'no folder' if rank else 'one.ckpt'}/x"},
        ):
            try:
                training("plain", **options, **change)
                messages.append("")
            except (ValueError, RuntimeError, OSError) as error:
                messages.append(str(error))
        messages.append(_loses_a_file(rank))
        torch.save(messages, f"{folder}/messages{rank}.pt")


class Files(TensorDataset):
    """Samples in files, of which one gets lost after some were read."""

    left = 10**9

    def __getitem__(self, index):
        Files.left -= 1
        if Files.left < 0:
            raise FileNotFoundError("17.png")
        return super().__getitem__(index)


def _loses_a_file(rank):
    """What `fit` says if one rank cannot read a batch in the second of two epochs."""
    method = Plain(DistributedDataParallel(network()), loss_fn)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)

    def after(*_):
        Files.left = 10 if rank else 10**9

    try:
        fit(
            method, optimizer, Files(TRAIN.pixels, TRAIN.targets), LABELS, HELD_OUT,
            epochs=2, batch_size=16, seed=0, on_epoch=after,
        )  # fmt: skip
    except (FileNotFoundError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def _one_file(tmp_path):
    # in the place of a folder, so that rank 0 cannot write below it
    (tmp_path / "one.ckpt").write_text("")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    _one_file(path)
    on_two_ranks(_rank, str(path))
    return path


@pytest.mark.parametrize("kind", ["plain", "sam"])
def test_samples_dealt_out_to_two_ranks_train_as_one_process_with_the_batches_of_both(folder, kind):
    metrics, state = outcomes(folder, kind)
    expected, weights = training(kind, batch_size=32)
    for name, tensor in weights.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-10, atol=1e-12)
    for name in (
        "train_loss",
        "train_accuracy",
        "memorized",
        "recovered",
        "test_loss",
        "test_accuracy",
        "gradients",
    ):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", RESUMED)
def test_killed_ranks_resume_to_the_same_bits(folder, kind):
    metrics, state = outcomes(folder, kind)
    resumed, again = outcomes(folder, f"{kind}-resumed")
    for name in METRICS.keys() - {"seconds"}:
        np.testing.assert_array_equal(resumed[name], metrics[name], err_msg=name)
    for name, tensor in state.items():
        assert torch.equal(again[name], tensor), name


def test_a_loss_that_remembers_samples_remembers_those_of_all_ranks(folder):
    _, state = outcomes(folder, "elr")
    assert (state["targets"].abs().sum(1) > 0).all()


def test_no_two_samples_of_two_ranks_get_the_same_label_noise(folder):
    noise = outcomes(folder, "sln")[1]["noise"]
    assert len(noise.unique(dim=0)) == len(noise) == 96


def test_averaged_networks_are_the_same_on_both_ranks_with_their_statistics(folder):
    weights = outcomes(folder, "regce")[1]
    assert "average.1.running_mean" in weights
    assert not torch.equal(weights["average.1.running_mean"], weights["1.running_mean"])


def test_ranks_with_samples_of_their_own_train_on_these_and_measure_all(folder):
    metrics, state = outcomes(folder, "own")
    model = network()
    model.load_state_dict(state)
    with torch.no_grad():
        outputs = model(TRAIN.inputs)
    assert metrics["train_loss"][-1] == pytest.approx(loss_fn(outputs, LABELS.observed).item())
    wrong = LABELS.is_wrong
    assert metrics["memorized"][-1] == (outputs.argmax(1) == LABELS.observed)[wrong].double().mean().item()


def test_what_fails_on_one_rank_fails_on_both_and_none_waits(folder):
    first, second = (torch.load(folder / f"messages{rank}.pt") for rank in range(2))
    assert first[0] == second[0]
    assert first[0].startswith(
        "train: the ranks have 3 and 2 steps an epoch, of 48 and 28 samples; give every rank"
    )
    assert first[1] == second[1] == "train: 1 samples for 2 ranks"
    assert first[2].startswith("epochs: must be at least 1")
    assert second[2] == f"rank 0: ValueError: {first[2]}"
    assert "one.ckpt" in first[3]
    assert second[3].startswith("rank 0: ")
    assert second[4] == "FileNotFoundError: 17.png"
    assert first[4] == "RuntimeError: rank 1: FileNotFoundError: 17.png"


@pytest.mark.parametrize(("samples", "batch_size"), [(97, 8), (98, 48), (96, 8), (67, 32), (5, 2), (2, 4)])
def test_samples_are_dealt_out_whole_in_equally_many_steps(samples, batch_size):
    order = torch.randperm(samples)
    pieces = [Share(Ranks(rank, 2), True).pieces(order, batch_size) for rank in range(2)]
    assert len(pieces[0]) == len(pieces[1])
    assert sorted(torch.cat([*pieces[0], *pieces[1]]).tolist()) == list(range(samples))
    assert all(len(piece) <= batch_size + 2 for share in pieces for piece in share)


def test_a_wrapper_within_a_compiled_model_is_refused():
    model = network()
    model._orig_mod = object.__new__(DistributedDataParallel)
    with pytest.raises(ValueError, match="^model: compile first and wrap then"):
        Ranks.of(model)


def test_a_checkpoint_of_two_ranks_is_refused_by_one(folder):
    with pytest.raises(ValueError, match="was written by 2 ranks, 1 are to go on"):
        training("elr", checkpoint=folder / "elr.ckpt")
    assert not dist.is_initialized()
