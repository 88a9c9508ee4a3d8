"""Label noise by a transition matrix: any matrix, or one of those that have a name."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ncsam.label_noise.draws import relabel_by_matrix
from ncsam.label_noise.labels import Corruption

TRANSITION_MATRICES = {
    "cifar10n-worst": (
        (0.6502, 0.0656, 0.0718, 0.0192, 0.0194, 0.0228, 0.0188, 0.0166, 0.0846, 0.0310),
        (0.0430, 0.5922, 0.0152, 0.0264, 0.0174, 0.0154, 0.0136, 0.0136, 0.0158, 0.2474),
        (0.0554, 0.0366, 0.6320, 0.0458, 0.0594, 0.0476, 0.0498, 0.0332, 0.0236, 0.0166),
        (0.0396, 0.0344, 0.0792, 0.4872, 0.0426, 0.2056, 0.0470, 0.0238, 0.0212, 0.0194),
        (0.0394, 0.0326, 0.0700, 0.0402, 0.4882, 0.1064, 0.0390, 0.1516, 0.0210, 0.0116),
        (0.0330, 0.0282, 0.0528, 0.1830, 0.0404, 0.5802, 0.0274, 0.0294, 0.0122, 0.0134),
        (0.0380, 0.0382, 0.0840, 0.0758, 0.0508, 0.0576, 0.5936, 0.0286, 0.0204, 0.0130),
        (0.0398, 0.0280, 0.0242, 0.0220, 0.0512, 0.0618, 0.0230, 0.7216, 0.0174, 0.0110),
        (0.0818, 0.0728, 0.0218, 0.0144, 0.0210, 0.0186, 0.0164, 0.0218, 0.6834, 0.0480),
        (0.0416, 0.2820, 0.0174, 0.0206, 0.0176, 0.0176, 0.0120, 0.0144, 0.0262, 0.5506),
    ),
}
"""Name -> rows. `"cifar10n-worst"`: the worst of three human labels of each CIFAR-10 training image against the true
label (Wei et al. 2022, arXiv:2110.12088). The 5,000 images of each class are counted, so that the rows are exact."""


def matrix(
    clean: Tensor,
    classes: int,
    rate: float | None,
    generator: torch.Generator,
    *,
    transition: Tensor | str | list[list[float]],
) -> Corruption:
    """Class-dependent noise by a transition matrix.

    Args:
        clean: int64 (n,).
        classes: number of classes.
        rate: share of wrong labels, to which the matrix is scaled; the ratios of its mistakes stay. None: not scaled.
        generator: makes the draw.
        transition: (classes, classes), rows of probabilities that sum to 1; or one of `TRANSITION_MATRICES`.

    Warns:
        UserWarning: scaling makes a wrong label likelier than the true one, as it was not in the matrix.

    Raises:
        ValueError: the matrix has no such rows or an unknown name, or cannot be scaled to the rate.
    """
    found = _checked(transition, classes)
    if rate is not None:
        unscaled, found = found, _scaled(found, clean, rate)
        _warn_if_truth_is_lost(unscaled, found, clean, rate)
    return Corruption(relabel_by_matrix(clean, found, generator), found)


def _checked(transition: Tensor | str | list[list[float]], classes: int) -> Tensor:
    if isinstance(transition, str):
        if transition not in TRANSITION_MATRICES:
            known = ", ".join(sorted(TRANSITION_MATRICES))
            raise ValueError(f"transition: unknown matrix {transition!r}; known: {known}")
        found = torch.tensor(TRANSITION_MATRICES[transition], dtype=torch.float64, device="cpu")
    else:
        try:
            given = (
                transition if isinstance(transition, Tensor) else torch.as_tensor(transition, device="cpu")
            )
            found = given.detach().cpu().double()
        except (TypeError, ValueError) as error:
            raise ValueError(f"transition: must be a matrix of numbers ({error})") from error
    if found.shape != (classes, classes):
        raise ValueError(
            f"transition: must be {classes} x {classes} for {classes} classes, got {tuple(found.shape)}"
        )
    if not bool((found >= 0).all()):
        raise ValueError("transition: must hold probabilities, got one that is negative or NaN")
    totals = found.sum(1, keepdim=True)
    # the error of a matrix that was written with 4 decimals, or estimated in float32
    if not bool((totals - 1).abs().max() < 1e-3):
        row = int((totals - 1).abs().argmax())
        raise ValueError(f"transition: each row must sum to 1, row {row} sums to {totals[row].item():.6g}")
    return found / totals


def _scaled(transition: Tensor, clean: Tensor, rate: float) -> Tensor:
    wrong = transition.clone().fill_diagonal_(0)
    mistaken = wrong.sum(1)
    share = mistaken[clean].mean().item()
    # a class that does not occur draws no label, so that it sets no bound
    most = share / mistaken[clean].max().item() if share > 0 else 0.0
    if rate > most:
        raise ValueError(f"rate: this transition can be scaled to at most {most:.6g}, got {rate}")
    scaled = wrong * (rate / share if share > 0 else 1.0)
    # the row of such a class ends at labels that are all wrong
    scaled /= scaled.sum(1, keepdim=True).clamp(min=1)
    return scaled + torch.diag(1 - scaled.sum(1))


def _warn_if_truth_is_lost(unscaled: Tensor, scaled: Tensor, clean: Tensor, rate: float) -> None:
    """Warns of a class whose likeliest label is a wrong one by the scaling alone."""
    lost = _likeliest_is_wrong(scaled) & ~_likeliest_is_wrong(unscaled)
    classes = [label for label in clean.unique().tolist() if lost[label]]
    if not classes:
        return
    label = classes[0]
    wrong = scaled[label].clone()
    wrong[label] = 0
    warnings.warn(
        f"rate: scaled to {rate}, the transition labels class {label} as {int(wrong.argmax())} with probability "
        f"{wrong.max().item():.4g} and right with {scaled[label, label].item():.4g}; in the matrix as it is, the right "
        f"label is the likeliest. Classes {classes} so lose their own label. Leave rate out (rate=None) to take the "
        "matrix as it is, or give a smaller rate",
        stacklevel=4,
    )


def _likeliest_is_wrong(transition: Tensor) -> Tensor:
    """Whether a wrong label is likelier than the right one, bool (classes,)."""
    return transition.clone().fill_diagonal_(0).amax(1) > transition.diagonal()
