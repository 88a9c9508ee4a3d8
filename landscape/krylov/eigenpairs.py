"""Extreme eigenpairs of a symmetric operator by block Lanczos with full reorthogonalization."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.checks import check_is_tensor
from landscape.krylov.orthogonal import combine, lengths_of, orthogonalize, orthonormal, precision_of
from landscape.operator import Operator, ranks_of
from landscape.ranks import Ranks
from landscape.seeds import normal_like

SELECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "largest": lambda values: values,
    "smallest": lambda values: -values,
    "magnitude": lambda values: values.abs(),
}
"""Name -> sort key of eigenvalues. The eigenvalues with the largest keys are wanted."""

SMALL = 200
"""Up to this dimension a search may keep a basis of the whole space, which costs no more than some restarts."""

RANDOM_PART = 0.3
"""Length of the random vector in the sum from which a search with a block of 1 begins. The start vectors have length 1.
A longer random vector finds more of the pairs that the start vectors miss, but the first pair converges later."""


LEAST_RATIO_OF_LENGTHS = 0.2
"""A remainder whose smallest singular value exceeds this share of the largest is the next block as it stands. Columns
are divided by their length, and so is the rounding that lies in the basis: here it grows at most five times."""

RESIDUALS = 3.0
"""Error of a value, in residuals. Some eigenvalue lies within one residual (Weyl), but not always the wanted one: the
Ritz vector may mix the eigenvectors of two near eigenvalues. The residual r is then the standard deviation of the
mixture, and the upper eigenvalue is above the value by more than 3 r only if less than a tenth of the mixture is its
own."""


@dataclass(frozen=True)
class Eigenpairs:
    """Approximate eigenpairs, the most extreme first.

    Attributes:
        values: float64 (k,). Values, residuals, errors and converged are on the CPU.
        residuals: float64 (k,), ||A v - value v||. An eigenvalue of A lies within this distance of the value.
        errors: float64 (k,), `RESIDUALS` times the residual. The error of a value that lies apart from all others is
            far smaller, residual^2 / gap (Kato and Temple), but a search that may have missed an eigenvalue knows no
            gap. In simulations with eigenvalues 0.1 to 10% apart the error held for at least 17 in 20
            start vectors. It is never below the rounding of the operator, for which 10 eps of its dtype times the
            largest |value| is taken. (The eigenvalues of small networks' Hessians in float32 were within 0.6 eps of
            those in float64.)
        converged: bool (k,), whether the residual is at most tol |value|, or is rounding; False after a single block,
            which cannot show more extreme pairs.
        vectors: (n, k), orthonormal columns, in the precision of the search.
        products: number of matrix-vector products spent.
    """

    values: Tensor
    residuals: Tensor
    errors: Tensor
    converged: Tensor
    vectors: Tensor
    products: int


def most_vectors(k: int) -> int:
    """The number of vectors that a search for k pairs keeps, if there is room for them."""
    return max(4 * k, k + 20)


def fewest_vectors(k: int, width: int) -> int:
    """The smallest number of vectors for a search: a restart keeps the k pairs, and a block must fit beside them."""
    return k + width


def top_eigenpairs(
    operator: Operator,
    k: int,
    *,
    which: str = "largest",
    tol: float = 1e-3,
    max_products: int | None = None,
    block: int | None = None,
    start: Tensor | None = None,
    max_vectors: int | None = None,
    generator: torch.Generator,
) -> Eigenpairs:
    """The k most extreme eigenpairs of a symmetric operator.

    The method is block Lanczos with thick restarts (Wu and Simon 2000; Krylov-Schur, Stewart 2001). Every block is
    orthogonalized against the whole basis, and again if that shortened it by much, so that no eigenvalue appears more
    often than the operator has it. The vectors stay on the device, in the operator's precision, float32 at least. Inner
    products are summed in float64. Each step copies only some small matrices to the CPU.

    Args:
        operator: the symmetric operator.
        k: number of pairs, 1 to n.
        which: `"largest"`, `"smallest"` (algebraically) or `"magnitude"`.
        tol: a pair has converged when its residual is at most tol |value|, or at most the rounding of the operator in
            its dtype.
        max_products: most products that may be spent; 40 k + 60 if not given. Pairs that have not converged by then are
            returned and marked.
        block: number of vectors that are multiplied at a time, k if not given. All copies of an eigenvalue that is
            repeated up to `block` times are found. A block of 1 finds one copy, with about half the products.
        start: whole vectors (n, m) to begin with, such as the eigenvectors at weights nearby. The block is then m + 1,
            because one random vector, multiplied once, joins the start vectors. The start vectors may miss some of the
            wanted eigenpairs. The random vector finds at least 9 in 10 of those, and fewer where eigenvalues differ by
            only some percent. With a block of 1 the search begins from the sum of the start vectors and a smaller part
            of the random one. Where the operator has hardly changed, the first pair then takes 3 or 4 products in all,
            and the random vector finds some 8 in 10 of what the start misses.
        max_vectors: most vectors that are kept, besides a block of work; `most_vectors(k)` if not given. A search
            keeps `fewest_vectors` in any case. All n of an operator of at most 200 dimensions are kept in the end, if
            both budgets reach so far, because then all pairs converge.
        generator: draws random start vectors: the entries of this rank (`Ranks.generator`).

    Raises:
        ValueError: an argument is out of range.
    """
    dimension, device, ranks = operator.dimension, operator.device, ranks_of(operator)
    width, budget = _width_and_budget(dimension, k, which, tol, max_products, block, start)
    products = 0 if start is None else 1
    most = dimension if max_vectors is None else min(dimension, max_vectors)
    capacity = min(dimension, max(min(most, most_vectors(k)), fewest_vectors(k, width)))
    key = SELECTIONS[which]
    rounding = 10 * torch.finfo(operator.dtype).eps
    basis = _empty_basis(operator, capacity)
    projected = torch.zeros(capacity, capacity, dtype=torch.float64, device="cpu")
    size, steps = 0, 0
    if start is not None:
        start = _with_a_random_image(start.to(basis), width, operator, generator)
    columns = _first_block(basis, width, start, generator, ranks)

    while True:
        last = slice(size, size + columns.shape[1])
        basis[:, last] = columns
        products += columns.shape[1]
        # so that the columns are not held beside the product
        del columns
        directions, coefficients, coupling = _multiplied(operator, basis, last)
        steps += 1
        size = last.stop
        if not torch.isfinite(coefficients).all():
            return _not_a_number(len(basis), k, products, device)
        projected[:size, last] = coefficients
        projected[last, :size] = coefficients.T

        ritz = _ritz_pairs(projected[:size, :size], coupling, last, key)
        negligible = rounding * ritz.values.abs().max()
        # the first vectors also have a part in pairs that are more extreme; these show in the second block
        may_end = steps > 1 or size == dimension
        converged = (ritz.residuals <= torch.clamp(tol * ritz.values.abs(), min=negligible)) & may_end
        width = min(width, dimension - size)
        found = size >= k and bool(converged[:k].all())
        if found and start is not None:
            found = _none_is_missed(key(ritz.values), ritz.residuals, k)
        if found or width == 0 or products + width > budget:
            break
        columns = _next_block(directions, coupling, basis[:, :size], width, negligible, generator, ranks)
        # the same memory as the columns in most cases
        del directions
        if size + width > capacity:
            kept = k + (capacity - width - k) // 3
            # the budget allows a basis of the whole space now, but not after another restart
            last_chance = dimension - size <= budget - products < dimension - kept + 2 * width
            if dimension <= min(most, SMALL) and last_chance:
                basis, projected, capacity = *_widened(basis, projected, dimension), dimension
                continue
            _restart(basis, projected, ritz, size, kept)
            size = kept

    return Eigenpairs(
        ritz.values[:k],
        ritz.residuals[:k].clamp(min=negligible),
        (RESIDUALS * ritz.residuals[:k]).clamp(min=negligible),
        converged[:k],
        basis[:, :size] @ ritz.combination[:, :k].to(basis),
        products,
    )


def _empty_basis(operator: Operator, capacity: int) -> Tensor:
    """Room for vectors. Columns lie together, so that a pass over some of them reads no other."""
    rows = ranks_of(operator).entries_of(operator.dimension)
    return torch.empty(capacity, rows, dtype=precision_of(operator.dtype), device=operator.device).T


def _restart(basis: Tensor, projected: Tensor, ritz: _RitzPairs, size: int, kept: int) -> None:
    """Puts the first Ritz pairs, in place, where the first `size` vectors were."""
    combine(basis[:, :size], ritz.combination[:, :kept])
    projected.zero_()
    projected[:kept, :kept] = torch.diag(ritz.values[:kept])


def _widened(basis: Tensor, projected: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """A basis and the operator in it, with zeros for further columns; columns lie together."""
    more = width - basis.shape[1]
    columns = torch.cat([basis.T, basis.new_zeros(more, len(basis))]).T
    return columns, nn.functional.pad(projected, (0, more, 0, more))


def check_start(start: Tensor | None, dimension: int) -> None:
    """Raises TypeError or ValueError for start vectors that are no tensor (n, m)."""
    if start is None:
        return
    check_is_tensor("start", start, f"({dimension}, m)")
    if start.ndim != 2 or len(start) != dimension or start.shape[1] < 1:
        raise ValueError(f"start: must be ({dimension}, m), got {tuple(start.shape)}")


def width_of(k: int, block: int | None, start: Tensor | None, dimension: int) -> int:
    """The number of vectors that a search for k pairs multiplies at a time. A random one joins those of a start."""
    if block is not None and (start is None or block == 1):
        return block
    return k if start is None else min(start.shape[1] + 1, dimension)


def default_budget(k: int) -> int:
    """Most products that a search for k pairs spends if its caller gives no number."""
    return 40 * k + 60


def _width_and_budget(
    dimension: int,
    k: int,
    which: str,
    tol: float,
    max_products: int | None,
    block: int | None,
    start: Tensor | None,
) -> tuple[int, int]:
    """The number of vectors that are multiplied at a time, and of products that may be spent.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 1 <= k <= dimension:
        raise ValueError(f"k: must lie between 1 and the number of parameters {dimension}, got {k}")
    if which not in SELECTIONS:
        raise ValueError(f"which: must be one of {', '.join(SELECTIONS)}, got {which!r}")
    if not tol > 0:
        raise ValueError(f"tol: must be positive, got {tol}")
    check_start(start, dimension)
    if start is not None and block not in (None, 1, start.shape[1]):
        raise ValueError(
            f"block: follows from the {start.shape[1]} start vectors; leave it out, or give 1, got {block}"
        )
    width = width_of(k, block, start, dimension)
    if not 1 <= width <= dimension:
        raise ValueError(f"block: must lie between 1 and the number of parameters {dimension}, got {width}")
    budget = default_budget(k) if max_products is None else max_products
    least = width * math.ceil(k / width) + (0 if start is None else 1)
    if budget < least:
        raise ValueError(f"max_products: {k} pairs need at least {least} products, got {budget}")
    return width, budget


@dataclass(frozen=True)
class _RitzPairs:
    """Eigenpairs of the operator in the basis, the most extreme first: values, vectors in the basis, residuals."""

    values: Tensor
    combination: Tensor
    residuals: Tensor


def _ritz_pairs(
    projected: Tensor, coupling: Tensor, last: slice, key: Callable[[Tensor], Tensor]
) -> _RitzPairs:
    """The Ritz pairs. `coupling` is the part outside of the basis of A times the columns `last` of the basis."""
    values, combination = torch.linalg.eigh(projected)
    order = key(values).argsort(descending=True)
    values, combination = values[order], combination[:, order]
    return _RitzPairs(values, combination, torch.linalg.vector_norm(coupling @ combination[last], dim=0))


def _none_is_missed(keys: Tensor, residuals: Tensor, k: int) -> bool:
    """Whether the pair after the first k cannot belong to them.

    Either its value is further from the k-th value than its residual, or its residual is below a tenth of the k-th
    value.
    """
    near = torch.maximum(keys[k - 1] - keys[k : k + 1], 0.1 * keys[k - 1].abs())
    return bool((residuals[k : k + 1] <= near).all())


def _with_a_random_image(start: Tensor, width: int, operator: Operator, generator: torch.Generator) -> Tensor:
    """The start vectors, joined by the product of the operator with a random vector.

    A search that starts from unwanted eigenvectors never leaves their span. The product holds a part of every
    eigenvector, and a larger part of the extreme ones than the random vector does.
    """
    image = (operator @ _random(start, 1, generator)).to(start)
    found, wanted = lengths_of(image).to(image), torch.linalg.vector_norm(lengths_of(start)).to(image)
    image = torch.nan_to_num(image / found * wanted, 0, 0, 0)
    joined = torch.cat([start, image], 1)
    return _in_one_vector(joined) if width == 1 else joined


def _in_one_vector(start: Tensor) -> Tensor:
    """The sum of the start vectors. The last one, the random image, has a smaller part, because most of it is noise."""
    lengths = lengths_of(start)
    directions = start / torch.where(lengths > 0, lengths, 1).to(start)
    return directions[:, :-1].sum(1, keepdim=True) + RANDOM_PART * directions[:, -1:]


def _first_block(
    basis: Tensor, width: int, start: Tensor | None, generator: torch.Generator, ranks: Ranks
) -> Tensor:
    if start is None:
        return orthonormal(_random(basis, width, generator), ranks)[0]
    directions, coupling = orthonormal(start.to(basis, copy=True), ranks)
    coupling = coupling.cpu()
    negligible = 1e4 * torch.finfo(basis.dtype).eps * coupling.abs().max()
    return _next_block(directions, coupling, basis[:, :0], width, negligible, generator, ranks)


def _multiplied(operator: Operator, basis: Tensor, last: slice) -> tuple[Tensor, Tensor, Tensor]:
    """The operator times the columns `last` of the basis, as (directions, coefficients, coupling).

    The product is basis @ coefficients + directions @ coupling, with directions outside of the basis.
    """
    product = operator @ basis[:, last]
    is_part = product.untyped_storage().data_ptr() == basis.untyped_storage().data_ptr()
    # columns lie together as in the basis: the passes that follow are then twice as fast as over rows
    product = product.T.to(basis.dtype, copy=is_part).contiguous().T
    coefficients = _taken_out(product, basis, last, ranks_of(operator))
    directions, coupling = orthonormal(product, ranks_of(operator))
    coefficients, coupling = torch.cat([coefficients, coupling]).cpu().split([last.stop, len(coupling)])
    return directions, coefficients, coupling


def _taken_out(product: Tensor, basis: Tensor, last: slice, ranks: Ranks) -> Tensor:
    """Takes out of a product, in place, its part in the span of the basis, whose coefficients are returned.

    Most of the part lies in the block that was multiplied and in the one before. Once these are taken out, the rest is
    seldom so short that the whole basis, whose passes cost most, is gone through again. The coefficients that are left
    are small, so that the basis' own precision is enough for them; where they are not, the pass is repeated.
    """
    before = max(0, 2 * last.start - last.stop)
    if before == 0:
        return orthogonalize(product, basis[:, : last.stop], ranks)
    near = orthogonalize(product, basis[:, before : last.stop], ranks, most_passes=1)
    coefficients = orthogonalize(product, basis[:, : last.stop], ranks, in_pieces=basis.dtype)
    coefficients[before:] += near
    return coefficients


def _random(like: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Random columns with the length, the dtype and the device of other columns."""
    return normal_like((len(like), width), like, generator)


def _next_block(
    directions: Tensor,
    coupling: Tensor,
    basis: Tensor,
    width: int,
    negligible: Tensor | float,
    generator: torch.Generator,
    ranks: Ranks,
) -> Tensor:
    """Orthonormal `directions` that span the remainder, with remainder = directions @ coupling.

    If a part of the remainder vanishes, the basis holds an invariant subspace. Random directions orthogonal to the
    basis then take the place of the missing ones, so that the search continues in the rest of the space.
    """
    left, sizes, _ = torch.linalg.svd(coupling)
    there = sizes[:width] > negligible
    if directions.shape[1] == width and bool(there.all()):
        if bool((sizes > LEAST_RATIO_OF_LENGTHS * sizes[0]).all()):
            return directions
        # all are needed as they are, and little of them lies in the basis, or another pass follows
        orthogonalize(directions, basis, ranks, in_pieces=basis.dtype)
        return orthonormal(directions, ranks)[0]
    # a column that hardly differs from the others lies largely in the basis; at length 1 that part can be removed
    columns = (directions @ left.to(directions))[:, :width][:, there.to(directions.device)]
    columns = torch.cat([columns, _random(columns, width - columns.shape[1], generator)], 1)
    orthogonalize(columns, basis, ranks)
    return orthonormal(columns, ranks)[0]


def _not_a_number(rows: int, k: int, products: int, device: torch.device) -> Eigenpairs:
    nan = torch.full((k,), float("nan"), dtype=torch.float64, device="cpu")
    vectors = torch.full((rows, k), float("nan"), dtype=torch.float64, device=device)
    return Eigenpairs(
        nan, nan.clone(), nan.clone(), torch.zeros(k, dtype=torch.bool, device="cpu"), vectors, products
    )
