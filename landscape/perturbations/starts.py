"""Directions in which ascents to the sharpness start, beside the gradient: top eigenvectors, and outputs' slopes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from landscape.data.allocator import give_back_freed_memory
from landscape.data.batches import copied_to
from landscape.data.class_scores import are_class_scores
from landscape.data.complex_numbers import is_whole
from landscape.krylov import SymmetricOperator, top_eigenpairs
from landscape.krylov.eigenpairs import fewest_vectors, width_of
from landscape.loss.objective import Objective
from landscape.matrices import Hessian
from landscape.perturbations.ascent import MOST_POINTS, Neighborhood
from landscape.seeds import generator_for

LEAST_VECTORS = 3
"""Vectors that are held between gradients at least: the highest point, that of all ascents, and a direction."""
CONTINUED = 4
"""Short ascents that go on, so that their points are held."""
EIGENVECTORS = 5
"""Top eigenvectors among the starts of a loss without classes. With classes, one is enough."""
MOST_OUTPUTS = 20
"""Directions that raise or lower an output among the starts; of more, this number is drawn."""
ROUGHLY = 0.1
"""Relative residual of the eigenvectors from which ascents start. It may be large, because ascents improve them."""
MOST_PRODUCTS = 30
"""Most products for these eigenvectors."""


@dataclass(frozen=True)
class OutputStart:
    """The start of an ascent in which the mean of one output rises, or falls.

    Attributes:
        column: the column of the output.
        direction: gives the direction of u (n,).
    """

    column: int
    direction: Callable[[], Tensor]


@dataclass(frozen=True)
class Starts:
    """Directions in which ascents start, beside that of the gradient.

    The highest points near a trained classifier often give one class to many samples of other classes. The direction
    that raises the mean output of this class leads there. Random directions and eigenvectors often do not
    (`bench/sharpness_starts.py`).

    Attributes:
        outputs: the starts for outputs.
        eigenvectors: number of top eigenvectors, both signs of which are starts.
        has_room: whether the memory budget has room for the points of short ascents.
        is_complete: whether `outputs` has all outputs, and not only some that were drawn.
    """

    outputs: Sequence[OutputStart]
    eigenvectors: int
    has_room: bool
    is_complete: bool = True

    @property
    def count(self) -> int:
        """Number of starts, the gradient's among them."""
        return 1 + 2 * self.eigenvectors + len(self.outputs)

    @property
    def lines(self) -> list[int]:
        """The line on which each start lies. The two signs of a direction lie on one line."""
        of_outputs = [1 + self.eigenvectors + each.column for each in self.outputs]
        return [0, *(1 + index for index in range(self.eigenvectors) for _ in range(2)), *of_outputs]


def starts_of(objective: Objective, neighborhood: Neighborhood, *, seed: int, given: int = 0) -> Starts:
    """The starts for a loss: some for its outputs if these are columns, and eigenvectors as the memory budget allows.

    Scores of classes are raised, each alone. Other outputs are raised and lowered, and more eigenvectors are taken.

    Args:
        objective: its loss is maximized.
        neighborhood: a neighborhood of its weights.
        seed: seed of the draw among many outputs.
        given: number of eigenvectors that the caller has.
    """
    columns, are_classes = _columns_of(objective)
    signed = [
        (column, sign) for column in range(columns) for sign in ((1.0,) if are_classes else (1.0, -1.0))
    ]
    generator = generator_for("outputs that ascents raise", seed)
    drawn = torch.randperm(len(signed), generator=generator, device="cpu")[:MOST_OUTPUTS].sort().values
    chosen = [signed[index] for index in drawn.tolist()]
    outputs = [
        OutputStart(column, partial(_moves_output, objective, neighborhood, column, sign))
        for column, sign in chosen
    ]
    wanted = min(1 if are_classes else EIGENVECTORS, objective.n_parameters)
    needed = LEAST_VECTORS + 2 * MOST_POINTS + held_by_short_ascents(wanted)
    has_room = objective.memory.budget // objective.memory.vector - 1 >= needed
    fitting = wanted if has_room else 0 if outputs else 1
    return Starts(outputs, max(fitting, given), has_room, is_complete=len(chosen) == len(signed))


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
    generator = generator_for("start of a search for directions", seed)
    n = objective.n_parameters
    least = min(n, fewest_vectors(k, width_of(k, None, start, n)))
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


def _columns_of(objective: Objective) -> tuple[int, bool]:
    """Number of columns of the outputs (n, columns, ...), and whether they are scores of classes; 0 for other outputs.

    Scores of classes at each pixel or token are (n, classes, ...) for labels (n, ...), as torch's losses have them.
    """
    if not objective.has_outputs:
        return 0, False
    with objective.ranks.together(), objective.without_gradients():
        inputs, targets = copied_to(objective.chunks.first(1), objective.device)
        outputs = objective.outputs(objective.theta, inputs)
    if not isinstance(outputs, Tensor) or outputs.ndim < 2 or not outputs.is_floating_point():
        return 0, False
    if are_class_scores(outputs, targets):
        return outputs.shape[1], True
    if outputs.ndim == 2:
        return outputs.shape[1], False
    are_dense = isinstance(targets, Tensor) and is_whole(targets)
    if are_dense and targets.shape == outputs.shape[:1] + outputs.shape[2:]:
        return outputs.shape[1], True
    return 0, False


def _moves_output(objective: Objective, neighborhood: Neighborhood, column: int, sign: float) -> Tensor:
    """The gradient in u (n,) of the mean of an output, or of its negative."""
    of_outputs = copy.copy(objective)
    of_outputs.loss_fn = lambda outputs, _: sign * outputs[:, column].mean()
    of_outputs.penalty = None
    objective.gradients += 1
    return neighborhood.slope(of_outputs.gradient())
