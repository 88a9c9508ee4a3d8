"""Directions in which ascents to the sharpness start, beside the gradient: top eigenvectors, and one for each class."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from landscape.krylov import SymmetricOperator, top_eigenpairs
from landscape.krylov.eigenpairs import fewest_vectors
from landscape.loss.allocator import give_back_freed_memory
from landscape.loss.batches import copied_to
from landscape.loss.checks import are_class_scores
from landscape.loss.objective import Objective
from landscape.matrices import Hessian
from landscape.perturbations.ascent import MOST_POINTS, Neighborhood

LEAST_VECTORS = 3
"""Vectors that are held between gradients at least: the highest point, that of all ascents, and a direction."""
CONTINUED = 4
"""Short ascents that go on, so that their points are held."""
EIGENVECTORS = 5
"""Top eigenvectors among the starts of a loss without classes. With classes, one is enough."""
MOST_CLASSES = 20
"""Classes among the starts; of more classes, this number is drawn."""
ROUGHLY = 0.1
"""Relative residual of the eigenvectors from which ascents start. It may be large, because ascents improve them."""
MOST_PRODUCTS = 30
"""Most products for these eigenvectors."""


@dataclass(frozen=True)
class Starts:
    """Directions in which ascents start, beside that of the gradient.

    The highest points near a trained classifier often give one class to many samples of other classes. The direction
    that raises the mean output of this class leads there. Random directions and eigenvectors often do not
    (`bench/sharpness_starts.py`).

    Attributes:
        classes: each gives the direction of u (n,) that raises the mean output of one class.
        eigenvectors: number of top eigenvectors, both signs of which are starts.
        has_room: whether the memory budget has room for the points of short ascents.
    """

    classes: Sequence[Callable[[], Tensor]]
    eigenvectors: int
    has_room: bool

    @property
    def count(self) -> int:
        """Number of starts, the gradient's among them."""
        return 1 + 2 * self.eigenvectors + len(self.classes)


def starts_of(objective: Objective, neighborhood: Neighborhood, *, seed: int, given: int = 0) -> Starts:
    """The starts for a loss: some for its classes if it has classes, and eigenvectors as the memory budget allows.

    Args:
        objective: its loss is maximized.
        neighborhood: a neighborhood of its weights.
        seed: seed of the draw among many classes.
        given: number of eigenvectors that the caller has.
    """
    count = _classes_of(objective)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(count, generator=generator, device="cpu")[:MOST_CLASSES].sort().values.tolist()
    classes = [partial(_raises_class, objective, neighborhood, label) for label in chosen]
    wanted = min(1 if classes else EIGENVECTORS, objective.n_parameters)
    needed = LEAST_VECTORS + 2 * MOST_POINTS + held_by_short_ascents(wanted)
    has_room = objective.memory.budget // objective.memory.vector - 1 >= needed
    fitting = wanted if has_room else 0 if classes else 1
    return Starts(classes, max(fitting, given), has_room)


def held_by_short_ascents(eigenvectors: int) -> int:
    """The vectors that are held beside an ascent: eigenvectors, and the points of short ascents."""
    return eigenvectors + CONTINUED + 1


def remembered_points(objective: Objective) -> int:
    """How many points of an ascent are remembered: 0 where the memory budget has no room for 3."""
    vectors = objective.memory.budget // objective.memory.vector - 1 - LEAST_VECTORS
    points = min(MOST_POINTS, vectors // 2)
    return points if points >= 3 else 0


def top_directions(
    objective: Objective, scale: Tensor | float, k: int, seed: int, *, start: Tensor | None = None
) -> Tensor:
    """Approximate top eigenvectors (n, k) of T H T.

    The matrix is T H T and not H, so that rescaling of layers changes neither the neighborhood nor the search. The
    search begins from the vectors `start` (n, m) if given.
    """
    hessian = Hessian(objective)
    hessian.expect(MOST_PRODUCTS // 3)
    has_room = remembered_points(objective) > 0

    def product(block: Tensor) -> Tensor:
        image = hessian @ (block if isinstance(scale, float) else scale[:, None] * block)
        if not has_room:
            give_back_freed_memory(objective.theta)
        return image if isinstance(scale, float) else image.mul_(scale[:, None])

    scaled = SymmetricOperator(product, objective.n_parameters, objective.dtype, objective.device)
    generator = torch.Generator(objective.device).manual_seed(seed)
    width = k if start is None else start.shape[1] + 1
    least = min(objective.n_parameters, fewest_vectors(k, width))
    most = max(least, MOST_PRODUCTS) if has_room else least
    objective.check_that_derivatives_exist()
    what = "the top directions of a sharpness"
    with objective.memory.room_for_vectors(most, least, what) as count:
        return top_eigenpairs(
            scaled,
            k,
            tol=ROUGHLY,
            max_products=MOST_PRODUCTS,
            max_vectors=count,
            start=start,
            generator=generator,
        ).vectors


def _classes_of(objective: Objective) -> int:
    """Number of classes of which the model gives scores (n, classes) for labels (n,); 0 for another loss."""
    if not objective.has_outputs:
        return 0
    with objective.ranks.together(), objective.without_gradients():
        inputs, targets = copied_to(objective.chunks.first(1), objective.device)
        outputs = objective.outputs(objective.theta, inputs)
    return outputs.shape[1] if are_class_scores(outputs, targets) else 0


def _raises_class(objective: Objective, neighborhood: Neighborhood, label: int) -> Tensor:
    """The gradient in u (n,) of the mean output of a class."""
    of_outputs = copy.copy(objective)
    of_outputs.loss_fn = lambda outputs, _: outputs[:, label].mean()
    of_outputs.penalty = None
    objective.gradients += 1
    return neighborhood.slope(of_outputs.gradient())
