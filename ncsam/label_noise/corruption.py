"""Label noise by name: the table of the kinds, and the function that makes labels wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ncsam.data_bounds import missing_classes
from ncsam.label_noise.beta import beta
from ncsam.label_noise.labels import Corruption, NoisyLabels, empirical_transition
from ncsam.label_noise.maps import asymmetric, pair, superclass
from ncsam.label_noise.matrix import matrix
from ncsam.label_noise.part_dependent import part_dependent
from ncsam.label_noise.pmd import pmd
from ncsam.label_noise.symmetric import symmetric, symmetric_all
from ncsam.options import Option, Registry, check_is_tensor
from ncsam.plain_numbers import with_plain_numbers


@dataclass(frozen=True)
class NoiseKind:
    """A kind of label noise.

    Attributes:
        draw: (clean, classes, rate, generator, options by name) -> the observed labels, and the probabilities from
            which they were drawn. Its keyword-only arguments are the options.
        rate: whether the share of wrong labels must, may or must not be given.
        by_sample: whether the sample decides, and not its class alone. Such a kind draws no labels of positions.
    """

    draw: Callable[..., Corruption]
    rate: Literal["required", "optional", "never"] = "required"
    by_sample: bool = False


def _human(
    _clean: Tensor, classes: int, _rate: None, _generator: torch.Generator, *, observed: Tensor
) -> Corruption:
    _check_labels("observed", observed, classes)
    return Corruption(observed)


NOISE_KINDS: dict[str, NoiseKind] = {
    "symmetric": NoiseKind(symmetric),
    "symmetric-all": NoiseKind(symmetric_all),
    "asymmetric": NoiseKind(asymmetric),
    "superclass": NoiseKind(superclass),
    "pair": NoiseKind(pair),
    "matrix": NoiseKind(matrix, rate="optional"),
    "part-dependent": NoiseKind(part_dependent, by_sample=True),
    "pmd": NoiseKind(pmd, by_sample=True),
    "beta": NoiseKind(beta, by_sample=True),
    "human": NoiseKind(_human, rate="never"),
}
"""Name -> kind of label noise; the docstring of its `draw` describes it."""


NOT_SAMPLES = (
    "and these labels are of positions or in part ignored; give a kind in which the class alone decides, such as "
    '"symmetric"'
)

NOISE_REGISTRY: Registry[NoiseKind] = Registry("kind", NOISE_KINDS, maker=lambda kind: kind.draw)
"""The kinds of label noise with their options."""

NoiseOption = Option
"""An argument of `corrupt_labels` that a kind of label noise takes."""


def noise_options(kind: str) -> Mapping[str, NoiseOption]:
    """The options of a kind of label noise by name: all that it takes beside labels, rate and seed.

    Raises:
        ValueError: the kind is unknown.
    """
    return NOISE_REGISTRY.options(kind)


@with_plain_numbers
def corrupt_labels(
    targets: Tensor,
    *,
    kind: str = "symmetric",
    rate: float | None = None,
    seed: int,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    classes_of: str | None = None,
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

    In class-dependent kinds the class decides, and the number of wrong labels is the expected one, rounded. `rate` is
    the share of all labels, but for `"symmetric-all"` and `"asymmetric"`.
    `"symmetric"`: the wrong label is drawn uniformly from the *other* classes. `"symmetric-all"`: the label is drawn
    anew from all classes, the true one included, so that a nominal rate r corrupts the share r (1 - 1/classes).
    `"asymmetric"`: the similar class of the data set `classes_of`; the rate counts within the classes that have a
    similar one, which are half of them.
    `"superclass"`: the next class of CIFAR-100's superclass. `"pair"`: the next class. `"matrix"`: any transition
    matrix.

    In instance-dependent kinds the sample decides, and exactly `round(rate * n)` labels are wrong:
    `"part-dependent"` (Xia et al. 2020), `"pmd"` (Zhang et al. 2021), `"beta"` (the NCSAM paper's model).

    `"human"`: labels that people gave, as `read_human_labels` reads them.

    Args:
        targets: int64 (n,), the true labels, counted from 0, on any device; (n, ...), if each sample has labels of
            several positions, such as tokens or pixels. These are made wrong one by one.
        kind: one of `NOISE_KINDS`; `noise_options` says which of the arguments below a kind takes.
        rate: share of labels to make wrong, from 0 to below 1. `"matrix"` needs no rate; if a rate is given, the matrix
            is scaled to it. `"human"` takes no rate.
        seed: seed of the draw. The draw is made on the CPU from uniform numbers and integers, so that labels are the
            same on every device and machine.
        num_classes: the number of classes. If not given, the largest label plus one; each class must then occur.
        ignore_index: the label of places without a label, such as -100, which the loss ignores. They stay as they are.
        classes_of: for `"asymmetric"`: whose classes these are, `"cifar10"` or `"mnist"`.
        transition: for `"matrix"`: rows of probabilities, or a name of `TRANSITION_MATRICES`.
        inputs: for `"part-dependent"`: (n, ...), the pixels.
        flip_std: for `"part-dependent"`: standard deviation of the flip rates.
        posterior: for `"pmd"`, and optional for `"beta"`: (n, classes), a classifier's class probabilities.
        pmd_type: for `"pmd"`: 1, 2 or 3.
        concentration: for `"beta"`: theta1 + theta2.
        observed: for `"human"`: int64, of the shape of `targets`, the labels.
        own: options of a kind of your own, registered with `NOISE_REGISTRY`.

    Raises:
        TypeError: the labels are no tensor.
        ValueError: the kind is unknown, the rate is outside [0, 1), a label is outside the classes, an argument that
            the kind needs is missing, an argument is given that the kind does not take, or an argument is out of range.
    """
    arguments = {
        "classes_of": classes_of,
        "transition": transition,
        "inputs": inputs,
        "flip_std": flip_std,
        "posterior": posterior,
        "pmd_type": pmd_type,
        "concentration": concentration,
        "observed": observed,
        **own,
    }
    return _corrupted("targets", targets, kind, rate, seed, num_classes, ignore_index, arguments)


def _corrupted(
    field: str,
    targets: Tensor,
    kind: str,
    rate: float | None,
    seed: int,
    num_classes: int | None,
    ignore_index: int | None,
    arguments: dict[str, Any],
) -> NoisyLabels:
    """See `corrupt_labels`.

    Args:
        field: name that the caller knows the targets by, for errors.
        arguments: options of the kind; None for one that was not given.
    """
    options = {name: value for name, value in arguments.items() if value is not None}
    chosen = NOISE_REGISTRY.entry(kind)
    NOISE_REGISTRY.check(kind, options)
    _check_rate(kind, chosen, rate)
    observed = options.get("observed")
    is_label = _places_of_labels(field, chosen, kind, targets, observed, ignore_index)
    clean = targets.cpu()[is_label]
    if observed is not None:
        options["observed"] = observed.cpu()[is_label]
    classes = _highest_label(targets, ignore_index) + 1 if num_classes is None else num_classes
    if ignore_index is not None and 0 <= ignore_index < classes:
        raise ValueError(
            f"ignore_index: {ignore_index} is one of the {classes} classes, which wrong labels may be; mark places "
            "without a label by a number outside, such as -100"
        )
    _check_labels(field, clean, classes)
    if num_classes is None and kind != "human":
        _check_that_every_class_is_there(field, clean, classes)
    if classes < 2:
        raise ValueError(f"num_classes: label noise needs at least 2 classes, got {classes}")
    if targets.ndim > 1 and num_classes in (None, targets.shape[-1]):
        _check_that_they_are_not_one_hot(field, targets)

    generator = torch.Generator().manual_seed(seed)
    drawn = chosen.draw(clean, classes, rate, generator, **options)
    if not isinstance(drawn, Corruption):
        raise TypeError(
            f"kind: {kind!r} must draw an ncsam.Corruption(observed), got a {type(drawn).__name__}"
        )
    found, expected, probabilities = drawn
    if probabilities is not None and clean.shape != targets.shape:
        raise ValueError(f"kind: {kind!r} draws a label for each sample, {NOT_SAMPLES}")
    # without a label there, people may have given one, or none
    whole = targets.clone() if observed is None else observed.to(targets.device, copy=True)
    whole[is_label.to(targets.device)] = found.to(targets.device)
    return NoisyLabels(
        clean=targets.clone(),
        observed=whole,
        transition=empirical_transition(clean, found, classes) if expected is None else expected,
        kind=kind,
        rate=(found != clean).double().mean().item() if rate is None else rate,
        seed=seed,
        transition_kind="empirical" if expected is None else "expected",
        probabilities=probabilities,
        rate_is_asked=rate is not None,
    )


@with_plain_numbers
def human_labels(
    clean: Tensor, observed: Tensor, num_classes: int | None = None, *, ignore_index: int | None = None
) -> NoisyLabels:
    """Labels that people gave, as `read_human_labels` reads them, beside the true ones.

    Args:
        clean: int64 (n,), the true labels; (n, ...), if each sample has labels of several positions. If they are not
            known, give the observed labels again; then no label counts as wrong, and comparisons with true labels have
            no meaning.
        observed: int64, of the same shape, the labels that training sees.
        num_classes: the number of classes; the largest true label plus one if not given.
        ignore_index: the label of places without a label, such as -100, which the loss ignores.

    Raises:
        TypeError: the labels are no tensor.
        ValueError: the labels do not fit each other, or lie outside the classes.
    """
    return _corrupted("clean", clean, "human", None, 0, num_classes, ignore_index, {"observed": observed})


def _check_rate(kind: str, chosen: NoiseKind, rate: float | None) -> None:
    if rate is None and chosen.rate == "required":
        raise ValueError(f"rate: {kind!r} needs it")
    if rate is not None and chosen.rate == "never":
        raise ValueError(f"rate: {kind!r} labels have their own, got {rate}; leave it out")
    if rate is not None and not 0 <= rate < 1:
        raise ValueError(f"rate: {rate} is not a share of wrong labels; must be at least 0 and below 1")


def _places_of_labels(
    field: str,
    chosen: NoiseKind,
    kind: str,
    targets: Tensor,
    observed: Tensor | None,
    ignore_index: int | None,
) -> Tensor:
    """Where there are labels, bool, of the shape of the targets, on the CPU. Checks the shapes."""
    _check_integers(field, targets)
    is_label = torch.ones(targets.shape, dtype=torch.bool, device="cpu")
    if ignore_index is not None:
        is_label &= targets.cpu() != ignore_index
    if chosen.by_sample and (targets.ndim > 1 or not is_label.all()):
        raise ValueError(f"kind: {kind!r} draws a label for each sample, {NOT_SAMPLES}")
    if observed is not None:
        _check_integers("observed", observed)
        if observed.shape != targets.shape:
            raise ValueError(
                f"observed: must be int64 of shape {tuple(targets.shape)}, as the true labels are, got shape "
                f"{tuple(observed.shape)}"
            )
        if ignore_index is not None:
            is_label &= observed.cpu() != ignore_index
    if not is_label.any():
        raise ValueError(f"{field}: no place has a label that is not ignored (ignore_index={ignore_index})")
    return is_label


def _highest_label(targets: Tensor, ignore_index: int | None) -> int:
    return int((targets if ignore_index is None else targets[targets != ignore_index]).max())


def _check_integers(name: str, labels: Tensor) -> None:
    check_is_tensor(name, labels, "(n,) of int64")
    if labels.dtype != torch.int64 or labels.ndim == 0 or labels.numel() == 0:
        raise ValueError(
            f"{name}: must be int64 of shape (n,), or (n, ...) for labels of positions, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )


def _check_that_they_are_not_one_hot(field: str, targets: Tensor) -> None:
    if targets.min() == 0 and targets.max() == 1 and bool((targets.sum(-1) == 1).all()):
        raise ValueError(
            f"{field}: are rows of zeros and a single one, which stand for classes; {field}.argmax(-1) makes labels of "
            "them; if they are labels of positions, give num_classes=2"
        )


def _check_that_every_class_is_there(field: str, targets: Tensor, classes: int) -> None:
    missing = missing_classes([targets], classes)
    if missing:
        raise ValueError(
            f"num_classes: no target is of class {missing}, which wrong labels would be drawn from; if it exists, "
            f"give num_classes={classes}; if {classes - 1} marks places without a label, give it as ignore_index; else "
            f"count the classes from 0, as {field}.unique(return_inverse=True)[1] does"
        )


def _check_labels(name: str, labels: Tensor, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        more = (
            f"; if there are more classes, give num_classes={int(labels.max()) + 1}"
            if labels.min() >= 0
            else ""
        )
        raise ValueError(
            f"{name}: labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}; if one of "
            f"these marks places without a label, give it as ignore_index{more}"
        )
