"""Studies with a planted truth, drawn and judged by one kind of prediction each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.claims.effect import Effect
from analysis.statistics import (
    best_among,
    failing_share,
    paired_effect,
    rank_association,
    slope_of,
    trend,
)

RATES = np.array([0.0, 0.2, 0.4, 0.6])
ALLOWED = 0.05

Generator = np.random.Generator


@dataclass(frozen=True)
class Outcome:
    """One simulated study.

    Attributes:
        effect: the effect that was found.
        these: the true value in the cells at hand.
        population: the true value in data like these.
        places: the true values of the cells or series.
    """

    effect: Effect
    these: float
    population: float
    places: np.ndarray


def difference(
    rng: Generator, means: np.ndarray, seeds: int, correlation: float, **options: object
) -> Outcome:
    """Paired differences; `options` change the prediction, or the spread of each cell."""
    cells = len(means)
    spread = np.asarray(options.get("spread", np.ones(cells)))
    true = means + correlation**0.5 * rng.normal(size=cells)
    within = (1 - correlation) ** 0.5 * spread[:, None] * rng.normal(size=(cells, seeds))
    values = (true[:, None] + within).ravel()
    predicted, margin = int(options.get("predicted", 1)), float(options.get("margin", np.nan))
    null = options.get("null", (0.0, 0.0))
    finding = paired_effect(np.repeat(np.arange(cells), seeds), values, null=null, margin=margin)
    effect = Effect(name="", predicted=predicted, unit="", finding=finding, margin=margin, null=null)
    return Outcome(effect, float(true.mean()), float(means.mean()), true)


def unequal_seeds(
    rng: Generator, means: float | Sequence[float], seeds: Sequence[int], spread: Sequence[float]
) -> Outcome:
    """Paired differences in the cells of one data set, of which each has its own number of seeds and spread."""
    cells = np.repeat(np.arange(len(seeds)), seeds)
    places = np.broadcast_to(np.asarray(means, dtype=np.float64), len(seeds))
    values = places[cells] + np.repeat(spread, seeds) * rng.normal(size=len(cells))
    finding = paired_effect(cells, values, data_sets=np.zeros(len(cells)))
    mean = float(places.mean())
    return Outcome(Effect(name="", predicted=1, unit="", finding=finding), mean, mean, places)


def trend_of_unequal_seeds(
    rng: Generator, series: int, seeds: Sequence[int], spread: Sequence[float]
) -> Outcome:
    """No slope in series of four rates, each with its own number of seeds and spread."""
    levels, sizes = (np.tile(np.repeat(of_rates, seeds), series) for of_rates in (RATES, spread))
    names = np.repeat(np.arange(series), sum(seeds))
    finding = trend(names, levels, sizes * rng.normal(size=len(levels)))
    return Outcome(Effect(name="", predicted=1, unit="", finding=finding), 0.0, 0.0, np.zeros(series))


def noise_trend(
    rng: Generator, slopes: np.ndarray, seeds: int, correlation: float, sd: float = 1.0
) -> Outcome:
    """The slope against the noise rate in series of four rates."""
    series = len(slopes)
    cells = slopes[:, None] * RATES + sd * correlation**0.5 * rng.normal(size=(series, len(RATES)))
    values = cells[:, :, None] + sd * (1 - correlation) ** 0.5 * rng.normal(size=(*cells.shape, seeds))
    labels = np.repeat(np.arange(series), len(RATES) * seeds)
    levels = np.tile(np.repeat(RATES, seeds), series)
    true = np.array([slope_of(RATES, of_series) for of_series in cells])
    effect = Effect(name="", predicted=1, unit="", finding=trend(labels, levels, values.ravel()))
    return Outcome(effect, float(true.mean()), float(slopes.mean()), true)


def option_trend(rng: Generator, slope: float, cells: int, seeds: int, correlation: float) -> Outcome:
    """The slope against a hyper-parameter with four values; runs of a seed share its offset, and a cell its slope."""
    of_cells = slope + correlation**0.5 * rng.normal(size=cells)
    slopes = of_cells[:, None] + (1 - correlation) ** 0.5 * rng.normal(size=(cells, seeds))
    offsets = 3 * rng.normal(size=(cells, seeds, 1))
    runs = offsets + slopes[:, :, None] * RATES + 0.05 * rng.normal(size=(cells, seeds, len(RATES)))
    found = [slope_of(RATES, of_seed) for of_seed in runs.reshape(-1, len(RATES))]
    finding = paired_effect(np.repeat(np.arange(cells), seeds), found)
    effect = Effect(name="", predicted=1, unit="", finding=finding)
    return Outcome(effect, float(of_cells.mean()), slope, of_cells)


def association(
    rng: Generator,
    shared: float,
    cells: int,
    families: int,
    kin: int,
    confounding: float | None = None,
    reversed_cell: int | None = None,
) -> Outcome:
    """Two quantities of methods in families; `shared` is their correlation over families, the same in all cells.

    With `confounding`, a third quantity has this correlation with both, and is held fixed.
    """
    first, second, third = rng.normal(size=(3, families))
    second = shared * first + (1 - shared**2) ** 0.5 * second
    if confounding is not None:
        rest = (1 - confounding**2) ** 0.5
        first, second = confounding * third + rest * first, confounding * third + rest * second

    signs = np.where(np.arange(cells) == reversed_cell, -1.0, 1.0)

    def of_runs(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, kin)[None] + 0.3 * rng.normal(size=(cells, families * kin))

    x, y = of_runs(first), of_runs(second) * signs[:, None]
    given = None
    if confounding is not None:
        # the third quantity is known, and x and y have no other noise, which it could not explain
        x, y = (np.repeat(np.repeat(v, kin)[None], cells, 0) for v in (first, second))
        given = np.repeat(np.repeat(third, kin)[None], cells, 0).ravel()
    methods = np.tile(np.arange(families * kin), cells)
    finding = rank_association(
        np.repeat(np.arange(cells), families * kin),
        methods,
        methods // kin,
        x.ravel(),
        y.ravel(),
        given=given,
    )
    noise = 0.0 if confounding is not None else 0.3**2 / kin
    true = (
        2 / np.pi * np.arcsin(shared / (1 + noise))
        if confounding is None
        else 6 / np.pi * np.arcsin(shared / 2)
    )
    places = true * signs
    effect = Effect(name="", predicted=1, unit="", finding=finding)
    return Outcome(effect, float(places.mean()), float(places.mean()), places)


def saturating(values: np.ndarray) -> np.ndarray:
    """A curve that is flat but for the middle."""
    return np.tanh(4 * values)


def cube(values: np.ndarray) -> np.ndarray:
    """A curve that is steep but for the middle."""
    return values**3


def steps(values: np.ndarray) -> np.ndarray:
    """A curve of several steps."""
    return np.floor(1.5 * values + 0.25)


def curved_association(
    rng: Generator,
    shape: Callable[[np.ndarray], np.ndarray],
    families: int,
    noise: float = 0.3,
    scattered: int = 0,
    error: float = 0.0,
) -> Outcome:
    """Two quantities of methods that depend along a curve on a third one, which is given, and on nothing in common.

    Args:
        noise: standard deviation about the curve.
        scattered: number of families that scatter 30 times more.
        error: standard deviation of what is given about the third quantity.
    """
    third = rng.normal(size=families)
    spread = noise * np.where(np.arange(families) < scattered, 30.0, 1.0)
    x, y = shape(third) + spread * rng.normal(size=(2, families))
    methods = np.arange(families)
    known = third + error * rng.normal(size=families)
    finding = rank_association(np.zeros(families), methods, methods, x, y, given=known)
    return Outcome(Effect(name="", predicted=1, unit="", finding=finding), 0.0, 0.0, np.zeros(1))


def share(rng: Generator, failing: float, cells: int, seeds: int, together: bool) -> Outcome:
    """Runs of six methods on each draw. They fail independently, or all runs of a draw fail together."""
    fails = rng.random((cells * seeds, 1 if together else 6)) < failing
    fails = np.broadcast_to(fails, (cells * seeds, 6)).astype(float)
    draws = np.repeat(np.arange(cells * seeds), 6)
    finding = failing_share(draws, draws // seeds, fails.ravel(), allowed=ALLOWED)
    effect = Effect(name="", predicted=-1, unit="", finding=finding, null=(ALLOWED, ALLOWED))
    return Outcome(effect, failing, failing, np.array([failing]))


def alike(
    rng: Generator,
    mean: float,
    data_sets: int,
    in_each: int,
    seeds: int,
    correlation: float,
    by_cells: bool = False,
) -> Outcome:
    """Paired differences in data sets whose cells are alike: `correlation` is that of the cells of a data set.

    Args:
        by_cells: whether each cell counts as a data set of its own.
    """
    of_data_sets = np.repeat(rng.normal(size=data_sets), in_each)
    true = (
        mean
        + correlation**0.5 * of_data_sets
        + (1 - correlation) ** 0.5 * rng.normal(size=data_sets * in_each)
    )
    cells = np.repeat(np.arange(data_sets * in_each), seeds)
    values = true[cells] + rng.normal(size=len(cells))
    finding = paired_effect(cells, values, data_sets=None if by_cells else cells // in_each)
    return Outcome(Effect(name="", predicted=1, unit="", finding=finding), float(true.mean()), mean, true)


def one_run_in_cells(rng: Generator, mean: float, cells: int, seeds: int, correlation: float) -> Outcome:
    """Paired differences in cells of which the runs of a seed share their draws, with this correlation."""
    shared = correlation**0.5 * rng.normal(size=seeds)
    values = mean + shared + (1 - correlation) ** 0.5 * rng.normal(size=(cells, seeds))
    finding = paired_effect(
        np.repeat(np.arange(cells), seeds), values.ravel(), draws=np.tile(np.arange(seeds), cells)
    )
    effect = Effect(name="", predicted=1, unit="", finding=finding)
    return Outcome(effect, mean, mean, np.full(cells, mean))


def best_value(rng: Generator, means: np.ndarray, inside: np.ndarray, cells: int, seeds: int) -> Outcome:
    """The outcome at values of an option, whose best one is predicted to be among those inside."""
    labels = np.repeat(np.arange(cells), seeds)
    # runs of a seed share an offset
    outcomes = means + 3 * rng.normal(size=(len(labels), 1)) + rng.normal(size=(len(labels), len(means)))
    effect = Effect(name="", predicted=1, unit="", finding=best_among(labels, outcomes, inside))
    true = float(means[inside].max() - means[~inside].max())
    return Outcome(effect, true, true, np.full(cells, true))
