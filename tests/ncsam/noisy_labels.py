"""Labels and inputs for the tests of label noise, and a call of any kind with the options that it needs."""

import torch

from ncsam import corrupt_labels

targets = torch.arange(1000) % 10


def pixels(n=1000):
    """Images of 2 x 3 that differ from each other, from arithmetic alone."""
    return (torch.arange(n * 6).view(n, 1, 2, 3) * 2654435761 % 251).to(torch.uint8)


def probabilities(n=1000, classes=10):
    raw = (torch.arange(n * classes).view(n, classes) * 2654435761 % 997 + 1).double() ** 3
    return raw / raw.sum(1, keepdim=True)


def corrupt(kind, clean=targets, rate=0.4, seed=0, classes=10, **changed):
    """Labels with noise of any kind, with the options that the kind needs."""
    options = {
        "asymmetric": {"classes_of": "cifar10"},
        "matrix": {"transition": "cifar10n-worst"},
        "part-dependent": {"inputs": pixels(len(clean))},
        "pmd": {"posterior": probabilities(len(clean), classes)},
        "human": {"observed": (clean + (torch.arange(len(clean)) % 3 == 0)) % classes},
    }.get(kind, {})
    if kind == "superclass":
        clean, classes = torch.arange(1000) % 100, 100
    if kind == "human":
        rate = None
    return corrupt_labels(
        clean, kind=kind, rate=rate, seed=seed, num_classes=classes, **{**options, **changed}
    )
