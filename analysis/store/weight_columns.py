"""Columns of the table about the weights alone: their number and norm, and the tails of weight matrices' spectra."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

COLUMNS = ("weight_tail_index", "weight_tail_index_error", "weight_norm")
TAIL_SHARE = 0.25
"""Share of the eigenvalues, the largest ones, that count as the tail."""
FEWEST = 8
"""Eigenvalues in the tail below which no tail index is estimated."""


def weight_columns(file: h5py.File) -> dict[str, float]:
    """The number of weights; tail index and norm of the weight matrices that are large enough for a tail.

    A matrix W has a row for each unit or channel; a kernel's other dimensions are its columns.

    Returns:
        weight_tail_index: mean over matrices of the `tail_index` of the eigenvalues of W W^T.
        weight_tail_index_error: its standard error, as for independent eigenvalues.
        weight_norm: Frobenius norm of these matrices together.
        weight_count: entries of all weight matrices and kernels, also of small ones.
        All but the last are NaN if no matrix is large enough, or if a weight is not finite.
    """
    return {
        **_of_large_matrices(file),
        "weight_count": float(sum(stored.size for _, stored in matrices_of(file))),
    }


def matrices_of(file: h5py.File) -> list[tuple[str, h5py.Dataset]]:
    """(name, weight matrix or kernel) of a run's network."""
    stored = file["weights"].items() if "weights" in file else ()
    return [(name, each) for name, each in stored if each.ndim > 1 and each.dtype.kind == "f" and each.size]


def _of_large_matrices(file: h5py.File) -> dict[str, float]:
    found, squares = [], []
    for _, stored in matrices_of(file):
        matrix = stored[()].astype(np.float64).reshape(len(stored), -1)
        if not np.isfinite(matrix).all():
            return dict.fromkeys(COLUMNS, math.nan)
        wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
        eigenvalues = np.linalg.eigvalsh(wide @ wide.T)
        eigenvalues[eigenvalues < _rounding(matrix.shape, stored.dtype) * eigenvalues[-1]] = 0
        estimate = tail_index(eigenvalues)
        if math.isfinite(estimate[0]):
            found.append(estimate)
            squares.append((matrix**2).sum())
    if not found:
        return dict.fromkeys(COLUMNS, math.nan)
    indices, errors = np.transpose(found)
    numbers = indices.mean(), np.linalg.norm(errors) / len(errors), math.sqrt(sum(squares))
    return {name: float(number) for name, number in zip(COLUMNS, numbers, strict=True)}


def _rounding(shape: tuple[int, ...], stored: np.dtype[Any]) -> float:
    """The share of the largest eigenvalue below which others are rounding, of the stored weights or of the product."""
    return float(max((np.finfo(stored).eps * max(shape)) ** 2, np.finfo(np.float64).eps * max(shape)))


def tail_index(eigenvalues: NDArray[np.float64]) -> tuple[float, float]:
    """The exponent a of a density ~ x^-a above the tail's lower end, by Hill's estimator, and its standard error.

    The standard error is that of independent draws. Eigenvalues of a matrix repel each other.

    Args:
        eigenvalues: (count,), at least 0. The largest `TAIL_SHARE` of them is the tail; the next one is its lower end.

    Returns:
        NaN with fewer than `FEWEST` eigenvalues in the tail, or where the tail's lower end is 0 or its upper end.
    """
    ordered = np.sort(eigenvalues)[::-1]
    count = int(TAIL_SHARE * len(ordered))
    if count < FEWEST or not 0 < ordered[count] < ordered[0]:
        return math.nan, math.nan
    index = 1 + 1 / float(np.log(ordered[:count] / ordered[count]).mean())
    return index, (index - 1) / math.sqrt(count)
