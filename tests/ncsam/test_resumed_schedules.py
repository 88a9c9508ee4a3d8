"""A resumed training is the unbroken one: the schedule, the number of epochs and the networks must be the same."""

import warnings
from itertools import pairwise

import pytest
import torch
from torch import nn

from ncsam import SAM, CoTeaching, Plain, build_schedule
from tests.ncsam.checkpointed import halved, ncsam, pes, sam, train

LENGTH = 8
"""Epochs of the trainings that follow."""


def by_name(name, epochs=LENGTH, **options):
    return lambda optimizer: build_schedule(name, optimizer, epochs=epochs, **options)


def by_function(function):
    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, function)


def one_cycle(**options):
    return lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=LENGTH, **options
    )


RATES = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]


class Killed(Exception):
    pass


def killed(checkpoint, after, **options):
    def kill(epoch, *_):
        if epoch == after:
            raise Killed

    with pytest.raises(Killed):
        train(checkpoint, epochs=LENGTH, on_epoch=kill, **options)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (by_name("step", factor=0.1), by_name("step", factor=0.5), "scheduler.gamma was 0.1 and is 0.5"),
        (
            by_name("step", milestones=[0.5]),
            by_name("step", milestones=[0.75]),
            "scheduler.milestones was [[4, 1]] and is [[6, 1]]",
        ),
        (by_name("cosine", 4), by_name("cosine", 8), "scheduler.T_max was 4 and is 8"),
        (
            by_name("cosine", warmup_epochs=2),
            by_name("constant", warmup_epochs=2),
            "scheduler.1 was 'CosineAnnealingLR' and is 'ConstantLR'",
        ),
        (
            by_name("cosine", warmup_epochs=2),
            by_name("cosine", warmup_epochs=3),
            "scheduler.0.start_factor was",
        ),
        (by_function(lambda epoch: 0.9**epoch), by_function(lambda epoch: 0.8**epoch), "of epoch 1 was 0.9"),
        (
            by_function(lambda epoch: RATES[epoch]),
            by_function(lambda epoch: RATES[-epoch - 1]),
            "of epoch 0 was 1.0 and is 0.2",
        ),
        (one_cycle(), one_cycle(pct_start=0.5), "scheduler._schedule_phases was"),
    ],
)
def test_a_training_by_another_schedule_does_not_resume(tmp_path, first, second, told):
    checkpoint = tmp_path / "training.pt"
    killed(checkpoint, 2, scheduler=first)
    with pytest.raises(ValueError, match="other settings: ") as refused:
        train(checkpoint, epochs=LENGTH, scheduler=second)
    assert told in str(refused.value)
    unbroken = train(None, epochs=LENGTH, scheduler=first).metrics
    resumed = train(checkpoint, epochs=LENGTH, scheduler=first).metrics
    assert resumed["learning_rate"].tolist() == unbroken["learning_rate"].tolist()
    assert resumed["train_loss"].tolist() == unbroken["train_loss"].tolist()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scheduler": lambda optimizer: build_schedule("constant", optimizer, epochs=1)},
        {"scheduler": by_name("constant", warmup_epochs=2)},
        {"scheduler": by_name("cosine", 4)},
        {"scheduler": halved},
        {"scheduler": by_function(lambda epoch: 0.9**epoch)},
        sam(),
    ],
)
def test_more_epochs_of_what_does_not_follow_their_number_are_an_unbroken_training(tmp_path, options):
    checkpoint = tmp_path / "training.pt"
    train(checkpoint, epochs=3, **options)
    resumed = train(checkpoint, epochs=6, **options).metrics
    unbroken = train(None, epochs=6, **options).metrics
    for name in ("learning_rate", "train_loss", "test_loss"):
        assert resumed[name].tolist() == unbroken[name].tolist()


@pytest.mark.parametrize(
    "options",
    [sam(warmup=0.5), ncsam(0), pes(0.5)],
    ids=["a warm-up", "the strength of NCSAM", "parts of PES"],
)
def test_more_epochs_of_a_method_that_follows_their_number_are_refused(tmp_path, options):
    checkpoint = tmp_path / "training.pt"
    train(checkpoint, epochs=2, **options)
    with pytest.raises(ValueError, match="epochs was 2 and is 4 .more epochs are welcome where neither"):
        train(checkpoint, epochs=4, **options)
    assert train(checkpoint, epochs=2, **options).epochs == 2


@pytest.mark.parametrize("hidden", [[16, 12], [16], [16, 8, 8], [8, 8]])
@pytest.mark.parametrize("kind", ["sam", "co-teaching"])
def test_a_network_of_another_form_does_not_resume_and_stays_as_it_is(tmp_path, hidden, kind):
    def build(widths, seed=1):
        torch.manual_seed(seed)
        sizes = [16, *widths, 3]
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        return nn.Sequential(nn.Flatten(), *layers)

    methods = []

    def make(widths, of_peer):
        def of(_):
            model = build(widths)
            methods.append(
                SAM(model, nn.CrossEntropyLoss(), rho=0.05)
                if kind == "sam"
                else CoTeaching(model, nn.CrossEntropyLoss(), peer=build(of_peer, 2), forget_rate=0.2)
            )
            return methods[-1]

        return of

    checkpoint = tmp_path / "training.pt"
    train(checkpoint, make=make([16, 8], [16, 8]))
    for widths, of_peer in [(hidden, hidden), ([16, 8], hidden)][: 1 if kind == "sam" else 2]:
        with pytest.raises(ValueError, match=r"^checkpoint: .*training\.pt (belongs|was written)"):
            train(checkpoint, make=make(widths, of_peer))
        torch.manual_seed(1)
        for seed, (network, form) in enumerate(
            zip(methods[-1].networks(), (widths, of_peer), strict=False), 1
        ):
            for found, first in zip(network.parameters(), build(form, seed).parameters(), strict=True):
                assert torch.equal(found, first)


def test_the_tensor_of_another_shape_is_named(tmp_path):
    def wide(width):
        return lambda _: Plain(
            nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.Linear(width, 3)), nn.CrossEntropyLoss()
        )

    train(tmp_path / "training.pt", make=wide(8))
    with pytest.raises(ValueError, match=r"1\.weight was of shape \(8, 16\) and is of \(9, 16\); build them"):
        train(tmp_path / "training.pt", make=wide(9))


def test_weights_that_a_callback_adds_to_the_optimizer_are_told_where_a_checkpoint_is_written(tmp_path):
    told = {}
    for checkpoint in (None, tmp_path / "training.pt"):
        grow = []

        def make(weights, lr, grow=grow):
            optimizer = torch.optim.SGD(weights[2:], lr=lr)
            grow.append(lambda: optimizer.add_param_group({"params": weights[:2]}))
            return optimizer

        def on_epoch(epoch, *_, grow=grow):
            if epoch == 1:
                grow[0]()

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(checkpoint, epochs=2, optimizer=lambda w, lr: make(list(w), lr), on_epoch=on_epoch)
        told[checkpoint is None] = [str(each.message) for each in caught]
    assert told[True] == []
    assert len(told[False]) == 1
    assert told[False][0].startswith("checkpoint: the optimizer holds other weights than at the beginning")


def test_weights_that_a_callback_thaws_are_resumed(tmp_path):
    """As the warning says."""

    def training(checkpoint, killed_after=None):
        model = []

        def make(network):
            network[1].requires_grad_(False)
            model.append(network)
            return Plain(network, nn.CrossEntropyLoss())

        def on_epoch(epoch, *_):
            if epoch >= 1:
                model[0][1].requires_grad_(True)
            if epoch == killed_after:
                raise Killed

        options = {"epochs": 3, "make": make, "steps": {"lr": 0.1, "momentum": 0.9}, "on_epoch": on_epoch}
        if killed_after is None:
            return train(checkpoint, **options).metrics["train_loss"].tolist()
        with pytest.raises(Killed):
            train(checkpoint, **options)
        return None

    training(tmp_path / "training.pt", killed_after=2)
    assert training(tmp_path / "training.pt") == training(None)
