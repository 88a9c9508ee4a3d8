"""Values that depend on each other: cells that hold the same runs, or runs with the same random draws.

Runs of one seed at one noise have the same initial weights, order of samples and wrong labels. If such runs, or one run
several times, lie in several cells, their luck does not average out over these cells. The seed is then the unit: it has
one value, the weighted sum over the cells that share it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.cells import Cells, cells_at
from analysis.statistics.resampling import Values

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Shared:
    """Values of cells, which of the cells share draws, and to which units of the population they belong.

    Attributes:
        where: int64 (values,), the cell of each value.
        values: float64 (values,).
        draws: int64 (values,), the draw of each value.
        blocks: int64 (cells,), equal for cells that share draws, also through other cells.
        units: int64 (cells,), equal for cells of one data set, and of data sets that share draws.
    """

    where: Codes
    values: Values
    draws: Codes
    blocks: Codes
    units: Codes

    @property
    def is_any(self) -> bool:
        """Whether two cells share a draw."""
        return len(np.unique(self.blocks)) < len(self.blocks)


def codes_of(labels: ArrayLike) -> Codes:
    """A number from 0 on for each distinct label, int64 (n,)."""
    return np.asarray(np.unique(np.asarray(labels).astype(str), return_inverse=True)[1], dtype=np.int64)


def shared_by(where: Codes, values: Values, data_sets: Codes, draws: Codes) -> Shared:
    """What the cells share.

    Args:
        where: int64 (values,), the cell of each value; each cell holds a value.
        values: float64 (values,).
        data_sets: int64 (values,), the data set of each value. A cell has one data set.
        draws: int64 (values,), the draw of each value.
    """
    first = np.unique(where, return_index=True)[1]
    return Shared(where, values, draws, connected(where, draws)[first], connected(data_sets, draws)[first])


def connected(first: Codes, second: Codes) -> Codes:
    """The group of each row, int64 (rows,); rows with an equal number in either column are of one group."""
    size = int(first.max()) + 1
    edges = scipy.sparse.coo_array(
        (np.ones(len(first)), (first, size + second)), shape=(size + int(second.max()) + 1,) * 2
    )
    groups = scipy.sparse.csgraph.connected_components(edges, directed=False)[1]
    return np.asarray(groups[first], dtype=np.int64)


def independent(cells: Cells, weights: Values, shared: Shared) -> tuple[Cells, Values]:
    """The same weighted sum of cell means, as one of independent blocks of cells: the blocks, and their weights.

    The value of a draw in a block is the weighted mean over the cells of the block. Draws that are not in each of these
    cells do not count.

    Args:
        cells: the cells.
        weights: float64 (cells,), the weights of the cell means.
        shared: their values, and what the cells share.
    """
    if not shared.is_any:
        return cells, weights
    where, values = shared.where, shared.values
    found, block_of, totals = [], [], []
    for number, block in enumerate(np.unique(shared.blocks)):
        members = np.flatnonzero(shared.blocks == block)
        inside = shared.blocks[where] == block
        total = float(np.abs(weights[members]).sum())
        parts = weights[members] / total if total else np.full(len(members), 1 / len(members))
        if len(members) == 1:
            # a single cell may hold several values of a draw, such as pairs
            whole = values[inside] * parts[0]
        else:
            whole = (
                _by_draw(shared.draws[inside], np.searchsorted(members, where[inside]), values[inside])
                @ parts
            )
        found.append(whole)
        block_of.append(np.full(len(whole), number))
        totals.append(total)
    if min(map(len, found)) == 0:
        return _without_a_test(cells), weights
    return cells_at(np.concatenate(block_of), np.concatenate(found)), np.array(totals)


def of_repeated_cells(where: Codes, draws: Codes) -> NDArray[np.bool_]:
    """The values of cells that say something of their spread, bool (values,).

    These are cells of two values or more, and of cells that share draws those of which two draws or more are in each.

    Args:
        where: int64 (values,), the cell of each value.
        draws: int64 (values,), the draw of each value.
    """
    kept = np.bincount(where)[where] > 1
    if not kept.any():
        return kept
    blocks = np.full(len(where), -1)
    blocks[kept] = connected(where[kept], draws[kept])
    for block in np.unique(blocks[kept]):
        inside = blocks == block
        cells, cell = np.unique(where[inside], return_inverse=True)
        if len(cells) > 1 and len(_by_draw(draws[inside], cell, np.zeros(len(cell)))) == 1:
            kept[inside] = False
    return kept


def _by_draw(draws: Codes, cell: Codes, values: Values) -> Values:
    """The mean value of each draw in each cell, float64 (draws, cells), of draws that are in every cell."""
    names, row = np.unique(draws, return_inverse=True)
    shape = (len(names), int(cell.max()) + 1)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (row, cell), values)
    np.add.at(counts, (row, cell), 1)
    whole = (counts > 0).all(1)
    return np.asarray(sums[whole] / counts[whole])


def _without_a_test(cells: Cells) -> Cells:
    """The cells, with a spread that is not known, as no draw lies in all cells of a block."""
    return replace(cells, variances=np.full_like(cells.means, np.nan), freedom=0.0)
