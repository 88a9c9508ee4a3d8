"""A checkpoint of other settings is refused, with the setting's name and both values."""

import functools
import re
from itertools import pairwise

import pytest
import torch
from torch import nn

from ncsam import (
    NCSAM,
    PES,
    SAM,
    Augmentation,
    CoTeaching,
    EarlyLearningRegularization,
    FisherPenalty,
    Plain,
    Split,
    build_schedule,
    corrupt_labels,
    fit,
)
from ncsam.methods.method import Method

TARGETS = torch.arange(32) % 3


def cross_entropy(**options):
    return functools.partial(nn.functional.cross_entropy, **options)


def train(
    checkpoint,
    make=lambda model: SAM(model, nn.CrossEntropyLoss(), rho=0.05),
    optimizer=torch.optim.SGD,
    scheduler=None,
    noise_seed=0,
    epochs=2,
    change=None,
    steps=None,
    **options,
):
    torch.manual_seed(0)
    data = Split(torch.rand(32, 1, 4, 4), TARGETS)
    method = make(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)))
    optimizer = optimizer(method.parameters(), **(steps or {"lr": 0.1}))
    return fit(
        method,
        optimizer,
        data,
        corrupt_labels(TARGETS, rate=0.2, seed=noise_seed),
        data,
        epochs=epochs,
        checkpoint=checkpoint,
        scheduler=None if scheduler is None else scheduler(optimizer),
        **{"batch_size": 8, "seed": 0, **options},
    )


def sam(**options):
    return {"make": lambda model: SAM(model, nn.CrossEntropyLoss(), **{"rho": 0.05, **options})}


def plain(loss_fn):
    return {"make": lambda model: Plain(model, loss_fn)}


def ncsam(seed):
    return {
        "make": lambda model: NCSAM(
            model, nn.CrossEntropyLoss(), rho=0.05, flip_ratio=0.4, strength=0.1, warmup=0.0, seed=seed
        )
    }


def pes(first):
    return {"make": lambda model: PES(model, nn.CrossEntropyLoss(), first=first, second=0, third=0, latter=1)}


def passes(**options):
    def make(model):
        method = SAM(model, nn.CrossEntropyLoss(), rho=0.05)
        for name, value in options.items():
            setattr(method.passes, name, value)
        return method

    return {"make": make}


def in_groups(*sizes):
    """SGD over the four tensors of the network, in groups."""

    def make(weights, **options):
        weights = list(weights)
        return torch.optim.SGD(
            [{"params": [weights.pop() for _ in range(size)]} for size in sizes], **options
        )

    return {"optimizer": make}


def backward(weights, **options):
    return torch.optim.SGD(list(weights)[::-1], **options)


def constant(optimizer):
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5)


def halved(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({}, {"seed": 7}, "seed was 0 and is 7"),
        ({}, {"batch_size": 16}, "batch_size was 8 and is 16"),
        ({}, {"mixup_alpha": 1.0}, "mixup_alpha was None and is 1.0"),
        ({}, {"redraw": "step"}, "redraw was 'never' and is 'step'"),
        ({}, {"max_gradient_norm": 1.0}, "max_gradient_norm was None and is 1.0"),
        ({}, {"augmentation": Augmentation(crop=1)}, "augmentation was None and is 'Augmentation"),
        ({}, {"noise_seed": 1}, "labels was '"),
        ({}, plain(nn.CrossEntropyLoss()), "method was 'SAM' and is 'Plain'"),
        ({}, sam(rho=0.9), "method.rho was 0.05 and is 0.9"),
        ({}, sam(warmup=0.5), "method.warmup was 0.0 and is 0.5"),
        (ncsam(0), ncsam(1), "method.seed was 0 and is 1"),
        (pes(0.5), pes(0.7), "method.first was 0.5 and is 0.7"),
        (plain(nn.CrossEntropyLoss()), plain(nn.MultiMarginLoss()), "loss_fn was 'CrossEntropyLoss' and is "),
        (
            plain(nn.CrossEntropyLoss()),
            plain(nn.CrossEntropyLoss(label_smoothing=0.1)),
            "loss_fn.label_smoothing was 0.0 and is 0.1",
        ),
        (
            plain(nn.CrossEntropyLoss(weight=torch.ones(3))),
            plain(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3]))),
            "loss_fn.weight was '",
        ),
        (
            plain(EarlyLearningRegularization(32, 3)),
            plain(EarlyLearningRegularization(32, 3, momentum=0.9)),
            "loss_fn.momentum was 0.7 and is 0.9",
        ),
        (
            plain(cross_entropy(label_smoothing=0.1)),
            plain(cross_entropy(label_smoothing=0.2)),
            "loss_fn.label_smoothing was 0.1 and is 0.2",
        ),
        ({}, {"steps": {"lr": 0.5}}, "optimizer.lr was 0.1 and is 0.5"),
        ({}, {"steps": {"lr": 0.1, "momentum": 0.9}}, "optimizer.momentum was 0 and is 0.9"),
        (
            {"scheduler": halved},
            {"scheduler": halved, "steps": {"lr": 0.5}},
            "optimizer.lr was 0.1 and is 0.5",
        ),
        ({"scheduler": halved}, {"scheduler": constant}, "scheduler was 'StepLR' and is 'ConstantLR'"),
        ({}, passes(autocast_dtype=torch.bfloat16), "autocast_dtype was None and is 'torch.bfloat16'"),
        ({}, passes(scaler=torch.amp.GradScaler("cpu")), "scales_loss was False and is True"),
        ({}, passes(micro_batch_size=4), "micro_batch_size was None and is 4"),
        ({}, {"optimizer": backward}, "optimizer.weights was '4 of 4 ("),
        (
            in_groups(2, 2),
            in_groups(1, 3),
            "was written with an optimizer over other weights, groups of [2, 2]",
        ),
        (
            {"optimizer": torch.optim.Adam},
            {"optimizer": torch.optim.AdamW},
            "optimizer was 'Adam' and is 'AdamW'",
        ),
    ],
)
def test_another_training_does_not_resume(tmp_path, first, second, told):
    checkpoint = tmp_path / "training.pt"
    train(checkpoint, **first)
    with pytest.raises(
        ValueError, match=r"^checkpoint: .*training\.pt (belongs to .* other settings: |was written with)"
    ) as refused:
        train(checkpoint, **second)
    assert told in str(refused.value)
    assert re.search("delete the file( to train anew)?, or name another", str(refused.value))
    assert train(checkpoint, epochs=2, **first).epochs == 2


def test_several_settings_are_named_at_once(tmp_path):
    train(tmp_path / "training.pt")
    with pytest.raises(
        ValueError, match="seed was 0 and is 7, batch_size was 8 and is 16, .*, and 1 more differ"
    ):
        train(
            tmp_path / "training.pt",
            seed=7,
            batch_size=16,
            max_gradient_norm=2.0,
            steps={"lr": 0.5},
            epochs=4,
        )


def test_the_same_objects_go_on_with_a_learning_rate_that_has_moved(tmp_path):
    torch.manual_seed(0)
    data = Split(torch.rand(32, 1, 4, 4), TARGETS)
    method = FisherPenalty(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), nn.CrossEntropyLoss(), seed=0, strength=0.1
    )
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for epochs in (1, 2, 3):
        history = fit(
            method,
            optimizer,
            data,
            corrupt_labels(TARGETS, rate=0.2, seed=0),
            data,
            epochs=epochs,
            batch_size=8,
            seed=0,
            scheduler=scheduler,
            checkpoint=tmp_path / "training.pt",
        )
    assert history.metrics["learning_rate"].tolist() == [0.1, 0.05, 0.025]


def test_a_checkpoint_of_an_earlier_version_says_nothing_of_settings_and_resumes(tmp_path):
    checkpoint = tmp_path / "training.pt"
    train(checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    del state["settings"]
    torch.save(state, checkpoint)
    assert train(checkpoint, epochs=3, seed=7).epochs == 3


def test_an_option_that_a_later_version_adds_is_passed_over(tmp_path):
    checkpoint = tmp_path / "training.pt"
    train(checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    del state["settings"]["method.warmup"]
    torch.save(state, checkpoint)
    assert train(checkpoint, epochs=3).epochs == 3


class Doubled(SAM):
    """A method of a user, whose base gets another value under the same name."""

    def __init__(self, model, loss_fn, *, rho: float, **others):
        super().__init__(model, loss_fn, rho=2 * rho, **others)
        self.rho *= 1

    def descend(self, *arguments):
        super().descend(*arguments)


def test_a_method_remembers_the_settings_that_it_was_made_with():
    made = Doubled(nn.Linear(2, 2), nn.CrossEntropyLoss(), rho=0.25, warmup=0.5)
    assert isinstance(made, Method)
    assert made.arguments == {"rho": 0.25, "warmup": 0.5, "forward": None, "count": None}


LENGTH = 8
"""Epochs of the trainings that follow."""


def by_name(name, epochs=LENGTH, **options):
    return lambda optimizer: build_schedule(name, optimizer, epochs=epochs, **options)


def by_function(function):
    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, function)


def one_cycle(**options):
    return lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=LENGTH + 1, **options
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
    def build(widths):
        torch.manual_seed(1)
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
                else CoTeaching(model, nn.CrossEntropyLoss(), peer=build(of_peer), forget_rate=0.2)
            )
            return methods[-1]

        return of

    checkpoint = tmp_path / "training.pt"
    train(checkpoint, make=make([16, 8], [16, 8]))
    for widths, of_peer in [(hidden, hidden), ([16, 8], hidden)][: 1 if kind == "sam" else 2]:
        with pytest.raises(ValueError, match=r"^checkpoint: .*training\.pt (belongs|was written)"):
            train(checkpoint, make=make(widths, of_peer))
        torch.manual_seed(1)
        for network, form in zip(methods[-1].networks(), (widths, of_peer), strict=False):
            for found, first in zip(network.parameters(), build(form).parameters(), strict=True):
                assert torch.equal(found, first)


def test_the_tensor_of_another_shape_is_named(tmp_path):
    def wide(width):
        return lambda _: Plain(
            nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.Linear(width, 3)), nn.CrossEntropyLoss()
        )

    train(tmp_path / "training.pt", make=wide(8))
    with pytest.raises(ValueError, match=r"1\.weight was of shape \(8, 16\) and is of \(9, 16\); build them"):
        train(tmp_path / "training.pt", make=wide(9))
