"""The numbers among arguments are checked by name before any work: words, fractions, NaN, booleans, and bounds."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

import ncsam
from ncsam.plain_numbers import KINDS
from ncsam.training_numbers import TrainingNumbers
from tests.ncsam.small_network import network
from tests.ncsam.small_training import train

NAN, INF = float("nan"), float("inf")
RIGHT = {
    "epochs": 1,
    "batch_size": 8,
    "seed": 0,
    "alignment_batches": 0,
    "mixup_alpha": None,
    "max_gradient_norm": None,
}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("epochs", 2.5, ValueError),
        ("epochs", 0, ValueError),
        ("epochs", True, TypeError),
        ("batch_size", 50.5, ValueError),
        ("batch_size", 0, ValueError),
        ("batch_size", "50", TypeError),
        ("seed", -1, ValueError),
        ("seed", 0.5, ValueError),
        ("alignment_batches", 1.5, ValueError),
        ("alignment_batches", -1, ValueError),
        ("mixup_alpha", 0.0, ValueError),
        ("mixup_alpha", -1.0, ValueError),
        ("mixup_alpha", NAN, ValueError),
        ("mixup_alpha", INF, ValueError),
        ("max_gradient_norm", 0.0, ValueError),
        ("max_gradient_norm", -1.0, ValueError),
        ("max_gradient_norm", NAN, ValueError),
        ("max_gradient_norm", INF, ValueError),
    ],
)
def test_a_training_names_a_wrong_number_before_any_work(name, value, error):
    with pytest.raises(error, match=f"^{name}: must be "):
        TrainingNumbers.checked(**{**RIGHT, name: value})


@pytest.mark.parametrize("norm", [0.0, -1.0, NAN])
def test_a_training_does_not_begin_with_a_norm_that_turns_the_gradient(digits, norm):
    finished = []
    with pytest.raises(ValueError, match="^max_gradient_norm: must be"):
        train(digits, "plain", max_gradient_norm=norm, on_epoch=lambda epoch, *_: finished.append(epoch))
    assert not finished


def test_a_training_takes_numbers_of_numpy_and_torch():
    found = TrainingNumbers.checked(
        **{
            **RIGHT,
            "epochs": np.int64(2),
            "batch_size": torch.tensor(8),
            "max_gradient_norm": np.float32(0.5),
        }
    )
    assert (found.epochs, found.batch_size, found.max_gradient_norm) == (2, 8, 0.5)
    assert type(found.epochs) is type(found.batch_size) is int


def numbers_of(public):
    """Names of the arguments that are annotated as numbers."""
    parameters = inspect.signature(public).parameters.values()
    return [each.name for each in parameters if str(each.annotation).removesuffix(" | None") in KINDS]


CHECKED_LATER = {"fit"}
"""`fit` checks its numbers on all ranks together; see above."""


def is_called_by_users(public):
    """Whether it is a function, or a class of methods, losses or data; results are made by the package."""
    kinds = nn.Module | ncsam.Method | ncsam.Loaded
    return inspect.isfunction(public) or (
        inspect.isclass(public) and issubclass(public, kinds) and not inspect.isabstract(public)
    )


PUBLIC = {name: getattr(ncsam, name) for name in ncsam.__all__ if is_called_by_users(getattr(ncsam, name))}


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, argument)
        for name, public in PUBLIC.items()
        for argument in numbers_of(public)
        if name not in CHECKED_LATER
    ],
)
def test_everything_public_refuses_words_for_its_numbers(name, argument):
    public = PUBLIC[name]
    numeric = numbers_of(public)
    needed = {
        key: 1 if key in numeric else None
        for key, each in inspect.signature(public).parameters.items()
        if each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    }
    with pytest.raises(TypeError, match=f"^{argument}: must be a (whole )?number, got 'many'"):
        public(**{**needed, argument: "many"})


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda model, loss: ncsam.SAM(model, loss, rho=NAN), "rho"),
        (lambda model, loss: ncsam.SAM(model, loss, rho=True), "rho"),
        (lambda model, loss: ncsam.LookSAM(model, loss, rho=0.1, every=1.5), "every"),
        (lambda model, loss: ncsam.SOP(model, loss, samples=0, seed=0), "samples"),
        (
            lambda model, loss: ncsam.AUMFilter(model, loss, peer=network(), samples=-1, removed=0.1),
            "samples",
        ),
        (lambda model, loss: ncsam.JacobianPenalty(model, loss, seed=-1, strength=1.0), "seed"),
        (lambda model, loss: ncsam.PES(model, loss, latter=1.5), "latter"),
        (lambda *_: ncsam.EarlyLearningRegularization(-1, 3), "samples"),
        (lambda *_: ncsam.StochasticLabelNoise(4, 3, -1), "seed"),
        (lambda *_: ncsam.Augmentation(crop=1.5), "crop"),
        (lambda *_: ncsam.Augmentation(cutout=True), "cutout"),
    ],
)
def test_methods_losses_and_augmentations_name_a_wrong_number(make, field):
    with pytest.raises((ValueError, TypeError), match=f"^{field}: "):
        make(network(), nn.CrossEntropyLoss())
