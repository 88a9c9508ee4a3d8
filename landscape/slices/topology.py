"""Topology of a surface: its minima, the saddles between them, how deep each basin is, and how basins merge."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from landscape.krylov.stopping import QUANTILE, student
from landscape.results.fields import LOSS_UNIT, FloatArray, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import DrawnResult
from landscape.slices.two_dimensional import Surface

BASIN = ("basin",)


@result
class Topology(DrawnResult):
    """The basins of a surface, the deepest first: where each has its minimum, and where it merges into a deeper one.

    A basin that never merges, such as the deepest one, has the saddle NaN and the persistence infinite.
    """

    alpha: FloatArray = described("first coordinate of each minimum", dims=BASIN)
    beta: FloatArray = described("second coordinate of each minimum", dims=BASIN)
    loss: FloatArray = described("loss at each minimum", unit=LOSS_UNIT, dims=BASIN)
    saddle_alpha: FloatArray = described("first coordinate of the saddle where the basin merges", dims=BASIN)
    saddle_beta: FloatArray = described("second coordinate of that saddle", dims=BASIN)
    saddle_loss: FloatArray = described("loss at that saddle", unit=LOSS_UNIT, dims=BASIN)
    persistence: FloatArray = described("rise from the minimum to the saddle", unit=LOSS_UNIT, dims=BASIN)
    persistence_error: FloatArray = described(
        "bound on the persistence's error from those of the losses; NaN where the surface has none",
        unit=LOSS_UNIT,
        dims=BASIN,
    )
    parent: NDArray[np.int64] = described("the basin into which each merges; -1 for none", dims=BASIN)
    at_border: NDArray[np.bool_] = described(
        "the minimum lies at the border of the grid or of a hole, so that the loss may fall further beyond",
        dims=BASIN,
    )
    total_persistence: float = described("sum of the finite persistences of these basins", unit=LOSS_UNIT)
    roughness: float = described("the total persistence by the range of the losses")
    left_out: int = described("points without a finite loss, which belong to no basin")
    points: int = described("points of the surface")
    loss_unit: str = loss_unit_field()


@result
class TopologyDraws(DrawnResult):
    """Numbers of several surfaces' topologies: their mean over draws of directions or of samples, with its error."""

    quantity: NDArray[np.str_] = described("name of the number", dims=("quantity",), coordinate=True)
    values: FloatArray = described("of each draw", dims=("draw", "quantity"))
    mean: FloatArray = described("over the draws", dims=("quantity",))
    spread: FloatArray = described("standard deviation over the draws", dims=("quantity",))
    low: FloatArray = described("lower end of the mean's 95% interval (Student)", dims=("quantity",))
    high: FloatArray = described("upper end of the mean's 95% interval", dims=("quantity",))
    least: float = described("smallest persistence of a basin that counts", unit=LOSS_UNIT)
    loss_unit: str = loss_unit_field()


def topology(surface: Surface, *, least: float = 0.0) -> Topology:
    """The basins of a surface by the persistent homology of its sublevel sets.

    As the level rises, a basin is born at each minimum, and where two meet, at a saddle, the shallower one ends in the
    deeper one. The difference is its persistence. Points are neighbors along the axes. The pairs are computed by
    gudhi's cubical complexes. A shift of the losses changes nothing, and a rising transformation keeps all pairs.

    Points without a finite loss are left out: they belong to no basin, and no path leads over them. Among equal losses,
    as on a plateau, the order of the points decides where a minimum is, and a plateau has one.

    If all losses are wrong by at most e, each persistence is wrong by at most 2 e (Cohen-Steiner et al. 2007).
    `persistence_error` adds what the surface says at the minimum and at the saddle: two standard errors of its
    rise over draws of samples, and the interpolation's errors. A basin that is shallower than that may be noise.

    Args:
        surface: measured on a grid.
        least: smallest persistence of a basin that is kept.

    Raises:
        ModuleNotFoundError: gudhi is not installed.
        ValueError: no loss is finite, or a negative `least`.
    """
    if not least >= 0:
        raise ValueError(f"least: must be at least 0, got {least}")
    finite = np.isfinite(surface.loss)
    if not finite.any():
        raise ValueError("surface: no point has a finite loss")
    # a point that is not there enters at the level infinity, which no level reaches
    height = np.where(finite, surface.loss, np.inf)
    minima, saddles = _pairs(height)
    flat = height.ravel()
    depth = np.where(saddles >= 0, flat[saddles] - flat[minima], np.inf)
    kept = (depth > 0) & (depth >= least)
    # of equally deep basins the one that lasts longer is the elder
    order = np.lexsort((minima[kept], -depth[kept], flat[minima[kept]]))
    minima, saddles, depth = (each[kept][order] for each in (minima, saddles, depth))
    merges = saddles >= 0
    error = _error(surface).ravel()
    columns = len(surface.beta)
    total = float(depth[merges].sum())
    width = float(np.ptp(surface.loss[finite]))
    return Topology(
        alpha=surface.alpha[minima // columns],
        beta=surface.beta[minima % columns],
        loss=flat[minima],
        saddle_alpha=np.where(merges, surface.alpha[saddles // columns], np.nan),
        saddle_beta=np.where(merges, surface.beta[saddles % columns], np.nan),
        saddle_loss=np.where(merges, flat[saddles], np.nan),
        persistence=np.asarray(depth, dtype=np.float64),
        persistence_error=np.where(merges, error[minima] + error[saddles], np.nan),
        parent=_parents(height, minima, saddles),
        at_border=_beside_nothing(finite).ravel()[minima],
        total_persistence=total,
        roughness=total / width if width > 0 else 0.0,
        left_out=int((~finite).sum()),
        points=finite.size,
        loss_unit=surface.loss_unit,
    )


def topology_draws(surfaces: Sequence[Surface], *, least: float = 0.0) -> TopologyDraws:
    """How far the numbers of basins, their persistence and the roughness vary over draws.

    The draws are independent surfaces of one model: over other seeds of the directions, for what the choice of a plane
    does; or in one plane over other draws of samples (`surface(..., samples=..., seed=...)`), for what the samples do.

    Args:
        surfaces: at least two.
        least: smallest persistence of a basin that counts, such as twice the error of the losses.

    Raises:
        ModuleNotFoundError: gudhi is not installed.
        ValueError: fewer than two surfaces, surfaces in other units, or one without a finite loss.
    """
    if len(surfaces) < 2:
        raise ValueError(f"surfaces: must be at least 2, as the error is their spread, got {len(surfaces)}")
    if len({each.loss_unit for each in surfaces}) > 1:
        raise ValueError("surfaces: their losses have different units")
    found = [topology(each, least=least) for each in surfaces]
    numbers = {
        "basins": [len(each.loss) for each in found],
        "basins inside": [int((~each.at_border).sum()) for each in found],
        "total persistence": [each.total_persistence for each in found],
        "largest persistence": [
            float(each.persistence[np.isfinite(each.persistence)].max(initial=0)) for each in found
        ],
        "roughness": [each.roughness for each in found],
    }
    values = np.array(list(numbers.values()), dtype=np.float64).T
    mean, spread = values.mean(0), values.std(0, ddof=1)
    margin = student(QUANTILE, len(values)) * spread / np.sqrt(len(values))
    return TopologyDraws(
        quantity=np.array(list(numbers)),
        values=values,
        mean=mean,
        spread=spread,
        low=mean - margin,
        high=mean + margin,
        least=least,
        loss_unit=surfaces[0].loss_unit,
    )


def _pairs(height: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat positions (row by row) of each minimum and of the saddle where its basin merges, -1 where it never does."""
    complex_ = _gudhi().CubicalComplex(vertices=height)
    complex_.compute_persistence(homology_coeff_field=2, min_persistence=-1)
    merging, lasting = complex_.vertices_of_persistence_pairs()
    pairs = [np.asarray(merging[0]).reshape(-1, 2)] if len(merging) else []
    ends = np.asarray(lasting[0]).reshape(-1) if len(lasting) else np.zeros(0, dtype=np.int64)
    pairs.append(np.stack([ends, np.full_like(ends, -1)], 1))
    # gudhi counts positions with the first axis running fastest
    whole = np.concatenate(pairs).astype(np.int64)
    rows = np.arange(height.size).reshape(height.shape).ravel(order="F")
    minima = rows[whole[:, 0]]
    saddles = np.where(whole[:, 1] >= 0, rows[whole[:, 1]], -1)
    flat = height.ravel()
    # parts of the grid that only points without a loss connect never merge
    saddles = np.where((saddles >= 0) & np.isinf(flat[saddles]), -1, saddles)
    there = np.isfinite(flat[minima])
    return minima[there], saddles[there]


def _parents(height: FloatArray, minima: NDArray[np.int64], saddles: NDArray[np.int64]) -> NDArray[np.int64]:
    """The deepest other basin in the connected part below each saddle: the one into which the basin merges."""
    flat = height.ravel()
    parents = np.full(len(minima), -1, dtype=np.int64)
    for basin, saddle in enumerate(saddles):
        if saddle >= 0:
            parts, _ = scipy.ndimage.label(height <= flat[saddle])
            together = parts.ravel()[minima] == parts.ravel()[saddle]
            # basins are in order of depth
            parents[basin] = int(np.flatnonzero(together & (np.arange(len(minima)) != basin))[0])
    return parents


def _error(surface: Surface) -> FloatArray:
    """What the surface says of the errors of its losses; NaN where it says nothing."""
    known = [each for each in (surface.rise_error, surface.loss_interpolation_error) if each is not None]
    if not known:
        return np.full(surface.loss.shape, np.nan)
    total = np.zeros(surface.loss.shape)
    if surface.rise_error is not None:
        total = total + 2 * surface.rise_error
    if surface.loss_interpolation_error is not None:
        total = total + surface.loss_interpolation_error
    return total


def _beside_nothing(finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Points with a neighbor along an axis that is not there."""
    inside = np.pad(finite, 1)
    return ~(inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:])


def _gudhi() -> Any:
    try:
        return importlib.import_module("gudhi")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("topology needs gudhi: pip install 'ncsam[topology]'") from error
