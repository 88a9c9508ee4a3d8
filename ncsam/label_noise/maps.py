"""Each class is mistaken for one other class: asymmetric, within a superclass, or in a circle."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from ncsam.label_noise.draws import relabel_by_matrix
from ncsam.label_noise.labels import Corruption

SIMILAR_CLASSES = {
    "cifar10": {9: 1, 2: 0, 4: 7, 3: 5, 5: 3},
    "mnist": {2: 7, 3: 8, 5: 6, 6: 5, 7: 1},
}
"""Whose classes -> class -> the class that it is mistaken for (Patrini et al. 2017, arXiv:1609.03683).

CIFAR-10: truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog. MNIST: 2 -> 7, 3 -> 8, 5 <-> 6, 7 -> 1."""

OTHER_DATA = (
    "For other data give kind='matrix' with transition=, or "
    "kind='pair', which mistakes each class for the next"
)

TRUTH_IS_LOST = 0.5
"""Rate from which on the one wrong label of a class is as likely as the right one."""

CIFAR100_SUPERCLASSES = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11),
    *(6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5),
    *(5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
    *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13),
    *(16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)
"""Superclass of each of CIFAR-100's classes, both in alphabetical order (Krizhevsky 2009)."""


def asymmetric(
    clean: Tensor, classes: int, rate: float, generator: torch.Generator, *, classes_of: str | None = None
) -> Corruption:
    """Mistakes half of the classes for a similar one (`SIMILAR_CLASSES`).

    `rate` is the share within the classes that have a similar one. If the classes are balanced, the share rate / 2 of
    all labels becomes wrong.

    Args:
        clean: int64 (n,).
        classes: number of classes.
        rate: share of wrong labels within the classes that have a similar one.
        generator: makes the draw.
        classes_of: the data set whose classes these are, one of `SIMILAR_CLASSES`. Labels alone do not tell, and the
            similar classes of one data set mean nothing in another.

    Raises:
        ValueError: no data set is named or an unknown one, or the number of classes is another.
    """
    if classes_of not in SIMILAR_CLASSES:
        raise ValueError(
            f"classes_of: 'asymmetric' mistakes a class for a similar one, which is published for "
            f"{', '.join(map(repr, SIMILAR_CLASSES))}; name the one whose classes these are, got {classes_of!r}. "
            f"{OTHER_DATA}"
        )
    _check_classes("asymmetric", classes, 10, f"the 10 classes of {classes_of!r}")
    return _relabel(clean, classes, rate, generator, SIMILAR_CLASSES[classes_of])


def superclass(clean: Tensor, classes: int, rate: float, generator: torch.Generator) -> Corruption:
    """Mistakes each class of CIFAR-100 for the next class of its superclass, and the last for the first.

    Patrini et al. 2017, arXiv:1609.03683. (Code that takes classes 0 to 4, 5 to 9, ... for superclasses, as several
    published repositories do, puts apples and bears together: the classes are in alphabetical order.)

    Raises:
        ValueError: the number of classes is not 100.
    """
    _check_classes("superclass", classes, 100, "CIFAR-100's 100 classes in alphabetical order")
    mistakes: dict[int, int] = {}
    for group in range(max(CIFAR100_SUPERCLASSES) + 1):
        members = [label for label, found in enumerate(CIFAR100_SUPERCLASSES) if found == group]
        mistakes.update(zip(members, members[1:] + members[:1], strict=True))
    return _relabel(clean, classes, rate, generator, mistakes)


def pair(clean: Tensor, classes: int, rate: float, generator: torch.Generator) -> Corruption:
    """Mistakes each class for the next, and the last for the first (Han et al. 2018, "pair flipping")."""
    mistakes = {label: (label + 1) % classes for label in range(classes)}
    return _relabel(clean, classes, rate, generator, mistakes)


def _relabel(
    clean: Tensor, classes: int, rate: float, generator: torch.Generator, mistakes: Mapping[int, int]
) -> Corruption:
    if rate >= TRUTH_IS_LOST:
        label, wrong = next(iter(mistakes.items()))
        warnings.warn(
            f"rate: at {rate} the right label is no longer the likeliest: class {label} is labeled {wrong} with "
            f"probability {rate:.4g} and right with {1 - rate:.4g}, so that such classes lose their own label. Give a "
            "rate below 0.5, or kind='symmetric'",
            stacklevel=5,
        )
    transition = torch.eye(classes, dtype=torch.float64, device="cpu")
    for label, wrong in mistakes.items():
        transition[label, label] = 1 - rate
        transition[label, wrong] = rate
    return Corruption(relabel_by_matrix(clean, transition, generator), transition)


def _check_classes(kind: str, classes: int, needed: int, whose: str) -> None:
    if classes != needed:
        raise ValueError(f"num_classes: {kind!r} is defined for {whose}, got {classes}. {OTHER_DATA}")
