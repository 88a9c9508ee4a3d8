"""The largest rise of the loss near the weights."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from landscape.curvature.eigenvalues import TopEigenvalues
from landscape.loss.objective import Objective
from landscape.loss.units import unit_of
from landscape.loss.wrapped import of_objective
from landscape.perturbations.ascent import NORMS, Neighborhood
from landscape.perturbations.largest_size import check_size
from landscape.perturbations.relative_scale import scale_of
from landscape.perturbations.search import MORE, search
from landscape.perturbations.starts import starts_of, top_directions
from landscape.progress import Progress, counted
from landscape.results.fields import LOSS_UNIT, FloatArray, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import Result


@result
class Sharpness(Result):
    """The largest rise of the loss that was found near the weights, and whether the search converged.

    The value is a lower bound and has no error. It has converged if the highest point is stationary (its gap is at most
    tol^2) and a start that is not its opposite came within `tol` of it. On a rugged loss (`growth`) two things more are
    asked: 8 further starts in a row led no higher, which takes at least 2 `restarts`, and `unseen` is at most 0.4.
    """

    value: float = described("largest rise of the mean loss found", unit=LOSS_UNIT)
    one_step: float = described(
        "rise after one step of the gradient to the border, as SAM and ASAM take it", unit=LOSS_UNIT
    )
    center_loss: float = described("mean loss of the model itself", unit=LOSS_UNIT)
    rho: float = described("radius of the neighborhood")
    steps: int = described("most ascent steps from each start")
    restarts: int = described("most further starts; four times this on a rugged loss")
    gradients: int = described("gradients spent", unit="gradients")
    samples: int = described("samples in the mean loss")
    norm: str = described("l2: a ball; linf: a box", default="l2")
    adaptive: str = described("what the radius is relative to", default="none")
    starts: FloatArray | None = described(
        "largest rise found from each start, the gradient's first; most ascents are given up early",
        unit=LOSS_UNIT,
        dims=("start",),
        default=None,
    )
    # a file that lacks these fields holds a lower bound, and does not say whether the search converged
    gaps: FloatArray | None = described(
        "gain that the gradient at each start's highest point still promises in the neighborhood, as a share of the "
        "rise; 0 at a maximum",
        dims=("start",),
        default=None,
    )
    spread: float = described(
        "how far the second highest start lies below the highest, as a share of it; NaN for one start",
        default=math.nan,
    )
    tol: float = described("convergence asked for", default=math.nan)
    converged: bool = described(
        "the highest point found is a maximum, and another start came within tol of it; stricter where the loss is "
        "rugged",
        default=False,
    )
    directions: int = described("top eigenvectors among the starts", default=1)
    growth: float = described(
        "factor by which the highest of the first ascents rose after its first 8 gradients; from 1.1 on the loss is "
        "rugged, and more further starts are made",
        default=math.nan,
    )
    idle: int = described("further starts in a row that together led no higher than tol", default=0)
    unseen: float = described(
        "share of the further starts, but those near the highest point, whose end no other ascent reached: the chance "
        "that one more leads to a new maximum; NaN where there were none",
        default=math.nan,
    )
    outputs: int = described(
        "starts that raise or lower the mean of one output, such as a class's", default=0
    )
    offset: Tensor | None = described(
        "change of the weights at the highest point", dims=("parameter",), default=None
    )
    loss_unit: str = loss_unit_field()


@of_objective
def sharpness(
    objective: Objective,
    *,
    rho: float = 0.05,
    norm: str = "l2",
    adaptive: str = "none",
    tol: float = 0.01,
    steps: int = 120,
    restarts: int = 4,
    start: TopEigenvalues | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Sharpness:
    """Worst-case sharpness max L(theta + T u) - L(theta) over ||u|| <= rho, by converged ascents.

    Ascents (`landscape/perturbations/search.py`) start from the gradient's direction (SAM's rho g / ||g|| in the plain
    ball), from the directions that raise the mean score of each class, and from the top eigenvector of the Hessian in
    both directions. Outputs (n, columns) that are no scores of classes are raised and lowered, and the ascents start
    from five eigenvectors. At most 20 directions of outputs are starts; of more, 20 are drawn. The highest ascents go
    on, and further starts follow, until the highest point is found twice within `tol`, and not by the two signs of one
    direction alone. The result says whether it was found twice, and how much the gradient at the highest point still
    promises.

    Where the highest of these ascents rises by a tenth or more after its first 8 gradients (`growth`), or outputs are
    drawn, the loss is rugged: the highest short ascents may not lead to the highest maximum. There, 8 further starts in
    a row (`idle`) must lead no higher. At most 0.4 of all further starts, but those near the highest point, may end
    where no other did (`unseen`, the Good-Turing estimate of the chance that the next start leads to a new maximum). Up
    to four times as many further starts are made.

    A search cannot exclude that it missed a higher maximum. So the value is a lower bound, and `converged` says that
    more of the same search is unlikely to raise it. Where `converged` is False, more `restarts` are the remedy; on a
    rugged loss at least 2, since fewer make less than 8 further starts. Maxima are missed most often where the radius
    is nearly as large as the weights, with BatchNorm, with more than 20 classes, and without classes. Where the memory
    budget cannot hold some forty vectors as long as the weights, no eigenvector is a start, or one if no direction of
    an output is. `directions` and `outputs` say what the starts were. A rise that is smaller than the rounding of the
    loss has not converged.

    Sources: Keskar et al. 2017 (box), Foret et al. 2021 (ball, one step), Kwon et al. 2021 (adaptive),
    Andriushchenko et al. 2023 (all three), Good 1953 (unseen). Cost: 160 gradients and 10 products for most MLPs of
    ten classes, up to some 600 gradients for other networks, and up to some 2,000 on a rugged loss.

    Args:
        objective: its loss is measured, in evaluation mode.
        rho: radius of the neighborhood of u.
        norm: `"l2"`, a ball, or `"linf"`, a box.
        adaptive: scale T of the perturbation: `"none"` (T = 1), `"elementwise"` (T = |theta|) or `"filter"` (T = norm
            of each weight's filter or row, and |theta| for one-dimensional parameters).
        tol: relative accuracy that is asked for.
        steps: largest number of gradients in an ascent.
        restarts: largest number of further starts; four times this on a rugged loss, which needs 8 to converge: with 0
            or 1, the search never converges there. With 0, nothing confirms a maximum at which both signs of an
            eigenvector arrive and nothing else does.
        start: eigenpairs of the objective's Hessian. In the plain neighborhood all their vectors are starts. Without
            classes, if they are fewer than five, the search for five begins from them.
        seed: seed of the random starts.
        progress: called with the gradients of ascents spent and the most that may be spent. True writes a line on the
            terminal.

    Raises:
        ValueError: an argument is out of range, or too large for the dtype; or the start has no vectors or another
            size.
    """
    check_neighborhood(rho, norm)
    check_search(steps, restarts, tol)
    check_size("rho", rho, objective.dtype, is_squared=norm == "l2")
    spent = objective.gradients
    neighborhood = Neighborhood(rho, norm, scale_of(objective, adaptive))
    given = None if start is None else _vectors(start, objective)
    if adaptive != "none":
        given = None
    starts = starts_of(objective, neighborhood, seed=seed, given=0 if given is None else given.shape[1])

    def eigenvectors() -> Tensor:
        if given is not None and given.shape[1] == starts.eigenvectors:
            return given
        return top_directions(objective, neighborhood.scale, starts.eigenvectors, seed, start=given)

    with counted(steps * (starts.count + MORE * restarts), progress, "sharpness", "gradients") as spend:
        found = search(
            objective,
            neighborhood,
            steps=steps,
            restarts=restarts,
            tol=tol,
            seed=seed,
            starts=starts,
            eigenvectors=eigenvectors,
            spend=spend,
        )
    highest, scale = found.highest, neighborhood.scale
    return Sharpness(
        value=highest.rise,
        one_step=found.ascents[0].first_rise,
        center_loss=float(found.center),
        rho=rho,
        steps=steps,
        restarts=restarts,
        gradients=objective.gradients - spent,
        samples=objective.n_samples,
        norm=norm,
        adaptive=adaptive,
        starts=np.array([each.rise for each in found.ascents]),
        gaps=np.array([each.gap for each in found.ascents]),
        spread=found.spread,
        tol=tol,
        converged=found.converged,
        growth=found.growth,
        idle=found.idle,
        unseen=found.unseen,
        directions=found.eigenvectors,
        outputs=len(starts.outputs),
        loss_unit=unit_of(objective.loss_fn),
        offset=highest.offset if isinstance(scale, float) else scale * highest.offset,
    )


def check_neighborhood(rho: float, norm: str) -> None:
    """Raises ValueError if the size of a neighborhood is out of range, or its norm unknown."""
    if not 0 < rho < math.inf:
        raise ValueError(f"rho: must be positive and finite, got {rho}")
    if norm not in NORMS:
        raise ValueError(f"norm: must be one of {', '.join(NORMS)}, got {norm!r}")


def check_search(steps: int, restarts: int, tol: float) -> None:
    """Raises ValueError if a setting of the search for a worst case is out of range."""
    if steps < 1:
        raise ValueError(f"steps: must be at least 1, got {steps}")
    if restarts < 0:
        raise ValueError(f"restarts: must be at least 0, got {restarts}")
    if not 0 < tol < 1:
        raise ValueError(f"tol: must lie between 0 and 1, got {tol}")


def _vectors(start: TopEigenvalues, objective: Objective) -> Tensor:
    vectors = start.kept_vectors("start")
    if len(vectors) != objective.n_parameters:
        raise ValueError(
            f"start: holds eigenvectors of {len(vectors)} parameters, not of {objective.n_parameters}"
        )
    return vectors
