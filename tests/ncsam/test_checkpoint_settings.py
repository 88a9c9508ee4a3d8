"""A checkpoint of other settings is refused, with the setting's name and both values."""

import re

import pytest
import torch
from torch import nn

from ncsam import (
    SAM,
    Augmentation,
    EarlyLearningRegularization,
    FisherPenalty,
    Split,
    corrupt_labels,
    fit,
)
from ncsam.methods.method import Method
from ncsam.training_numbers import TrainingNumbers
from ncsam.training_settings import settings_of
from tests.ncsam.checkpointed import (
    TARGETS,
    backward,
    constant,
    cross_entropy,
    halved,
    in_groups,
    ncsam,
    passes,
    pes,
    plain,
    sam,
    train,
)


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


class Jitter:
    def __init__(self, spread):
        self.spread = spread

    def __call__(self, pixels, generator):
        return pixels + self.spread * torch.randn(pixels.shape, generator=generator)


def test_an_augmentation_of_ones_own_is_known_by_its_attributes_and_not_by_its_address():
    def said(augmentation):
        targets = torch.zeros(4, dtype=torch.int64)
        labels = corrupt_labels(targets, kind="symmetric", rate=0.0, seed=0, num_classes=2)
        method = SAM(nn.Linear(2, 2), nn.CrossEntropyLoss(), rho=0.1)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        numbers = TrainingNumbers.checked(1, 2, 0, 0, None, None)
        found = settings_of(method, optimizer, None, labels, numbers, "never", augmentation)
        return {name: value for name, value in found.items() if name.startswith("augmentation")}

    # both live, so that they lie at two addresses
    first, second = Jitter(0.1), Jitter(0.1)
    assert said(first) == said(second) != said(Jitter(0.2))
