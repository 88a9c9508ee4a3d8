"""Label noise by name: the table of the kinds, and the function that makes labels wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ncsam.label_noise.beta import beta
from ncsam.label_noise.labels import Corruption, NoisyLabels, empirical_transition
from ncsam.label_noise.maps import asymmetric, pair, superclass
from ncsam.label_noise.matrix import matrix
from ncsam.label_noise.part_dependent import part_dependent
from ncsam.label_noise.pmd import pmd
from ncsam.label_noise.symmetric import symmetric, symmetric_all
from ncsam.options import Option, Registry


@dataclass(frozen=True)
class NoiseKind:
    """A kind of label noise.

    Attributes:
        draw: (clean, classes, rate, generator, options by name) -> the observed labels, and what they were drawn from.
            Its keyword-only arguments are the options.
        rate: whether the share of wrong labels must, may or must not be given.
    """

    draw: Callable[..., Corruption]
    rate: Literal["required", "optional", "never"] = "required"


def _human(
    clean: Tensor, classes: int, _rate: None, _generator: torch.Generator, *, observed: Tensor
) -> Corruption:
    _check_shape("observed", observed, len(clean))
    _check_labels("observed", observed, classes)
    return Corruption(observed.cpu())


NOISE_KINDS: dict[str, NoiseKind] = {
    "symmetric": NoiseKind(symmetric),
    "symmetric-all": NoiseKind(symmetric_all),
    "asymmetric": NoiseKind(asymmetric),
    "superclass": NoiseKind(superclass),
    "pair": NoiseKind(pair),
    "matrix": NoiseKind(matrix, rate="optional"),
    "part-dependent": NoiseKind(part_dependent),
    "pmd": NoiseKind(pmd),
    "beta": NoiseKind(beta),
    "human": NoiseKind(_human, rate="never"),
}
"""Name -> how labels are made wrong; each is described where its `draw` is."""


NOISE_REGISTRY: Registry[NoiseKind] = Registry("kind", NOISE_KINDS, maker=lambda kind: kind.draw)
"""The kinds of label noise with their options."""

NoiseOption = Option
"""An argument of `corrupt_labels` that a kind of label noise takes."""


def noise_options(kind: str) -> Mapping[str, NoiseOption]:
    """What a kind of label noise takes beside the labels, the rate and the seed, by name.

    Raises:
        ValueError: unknown kind.
    """
    return NOISE_REGISTRY.options(kind)


def corrupt_labels(
    targets: Tensor,
    *,
    kind: str = "symmetric",
    rate: float | None = None,
    seed: int,
    num_classes: int | None = None,
    transition: Tensor | str | list[list[float]] | None = None,
    inputs: Tensor | None = None,
    flip_std: float | None = None,
    posterior: Tensor | None = None,
    pmd_type: int | None = None,
    concentration: float | None = None,
    observed: Tensor | None = None,
    **own: Any,
) -> NoisyLabels:
    """Replaces a share of the labels by wrong ones.

    Class-dependent kinds: `"symmetric"`: a label drawn uniformly from the *other* classes. `"symmetric-all"`:
    drawn anew from all classes, the true one included, so that a nominal rate r corrupts r (1 - 1/classes).
    `"asymmetric"`: CIFAR-10's similar classes; the rate is that within the classes that have one.
    `"superclass"`: the next class of CIFAR-100's superclass. `"pair"`: the next class. `"matrix"`: any
    transition matrix. Their number of wrong labels is the expected one, rounded.

    Instance-dependent kinds, with exactly `round(rate * n)` wrong labels: `"part-dependent"` (Xia et al. 2020),
    `"pmd"` (Zhang et al. 2021), `"beta"` (the NCSAM paper's model).

    `"human"`: labels that people gave, as `read_human_labels` reads them.

    Args:
        targets: int64 (n,), the true labels, counted from 0, on any device.
        kind: one of `NOISE_KINDS`; `noise_options` tells which of the arguments below it takes.
        rate: share of labels to make wrong, from 0 to below 1. `"matrix"` needs none: the matrix is scaled to
            it if given. `"human"` takes none.
        seed: of the draw, which is made on the CPU from uniform numbers and integers: the same labels on every
            device and machine.
        num_classes: the number of classes; the largest label plus one if not given, and then each must occur.
        transition: of `"matrix"`: rows of probabilities, or a name of `TRANSITION_MATRICES`.
        inputs: of `"part-dependent"`: (n, ...), the pixels.
        flip_std: of `"part-dependent"`: standard deviation of the flip rates.
        posterior: of `"pmd"`, and of `"beta"` if wanted: (n, classes), a classifier's class probabilities.
        pmd_type: of `"pmd"`: 1, 2 or 3.
        concentration: of `"beta"`: theta1 + theta2.
        observed: of `"human"`: int64 (n,), the labels.
        own: options of a kind of your own, registered with `NOISE_REGISTRY`.

    Raises:
        TypeError: labels that are no tensor.
        ValueError: unknown kind, a rate outside [0, 1), labels outside the classes, an argument that the kind
            needs and did not get or that it does not take, or one that is not what it must be.
    """
    chosen = NOISE_REGISTRY.entry(kind)
    arguments = {
        "transition": transition,
        "inputs": inputs,
        "flip_std": flip_std,
        "posterior": posterior,
        "pmd_type": pmd_type,
        "concentration": concentration,
        "observed": observed,
        **own,
    }
    options = {name: value for name, value in arguments.items() if value is not None}
    NOISE_REGISTRY.check(kind, options)
    _check_rate(kind, chosen, rate)
    _check_tensor("targets", targets)
    _check_shape("targets", targets, targets.numel())
    classes = int(targets.max()) + 1 if num_classes is None else num_classes
    _check_labels("targets", targets, classes)
    if num_classes is None and kind != "human":
        _check_that_every_class_is_there(targets, classes)
    if classes < 2:
        raise ValueError(f"num_classes: label noise needs at least 2 classes, got {classes}")

    generator = torch.Generator().manual_seed(seed)
    clean = targets.cpu()
    found, expected, probabilities = chosen.draw(clean, classes, rate, generator, **options)
    return NoisyLabels(
        clean=targets.clone(),
        observed=found.to(targets.device),
        transition=empirical_transition(clean, found, classes) if expected is None else expected,
        kind=kind,
        rate=(found != clean).double().mean().item() if rate is None else rate,
        seed=seed,
        transition_kind="empirical" if expected is None else "expected",
        probabilities=probabilities,
    )


def human_labels(clean: Tensor, observed: Tensor, num_classes: int | None = None) -> NoisyLabels:
    """Labels that people gave, as `read_human_labels` reads them, beside the true ones.

    Args:
        clean: int64 (n,), the true labels; where they are not known, the observed ones again: then none counts as
            wrong, and what is measured against true labels says nothing.
        observed: int64 (n,), the labels that training is to see.
        num_classes: the number of classes; the largest true label plus one if not given.

    Raises:
        TypeError: labels that are no tensor.
        ValueError: labels that do not fit each other or lie outside the classes.
    """
    return corrupt_labels(clean, kind="human", observed=observed, seed=0, num_classes=num_classes)


def _check_rate(kind: str, chosen: NoiseKind, rate: float | None) -> None:
    if rate is None and chosen.rate == "required":
        raise ValueError(f"rate: {kind!r} needs it")
    if rate is not None and chosen.rate == "never":
        raise ValueError(f"rate: {kind!r} labels have their own, got {rate}; leave it out")
    if rate is not None and not 0 <= rate < 1:
        raise ValueError(f"rate: {rate} is not a share of wrong labels; must be at least 0 and below 1")


def _check_tensor(name: str, labels: Tensor) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"{name}: must be an int64 tensor (n,), got {type(labels).__name__}; torch.as_tensor makes one"
        )


def _check_shape(name: str, labels: Tensor, count: int) -> None:
    _check_tensor(name, labels)
    if labels.dtype != torch.int64 or labels.shape != (count,) or count == 0:
        shape = f"({count or 'n'},)"
        raise ValueError(
            f"{name}: must be int64 of shape {shape}, got {labels.dtype} of shape {tuple(labels.shape)}"
        )


def _check_that_every_class_is_there(targets: Tensor, classes: int) -> None:
    missing = (targets.cpu().bincount(minlength=classes) == 0).nonzero().flatten().tolist()
    if missing:
        named = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise ValueError(
            f"num_classes: no target is of class {named}, which wrong labels would be drawn from; if it exists, "
            f"give num_classes={classes}; else count the classes from 0, as targets.unique(return_inverse=True)[1] does"
        )


def _check_labels(name: str, labels: Tensor, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{name}: labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}"
        )
