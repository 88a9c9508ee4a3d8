"""Studies with a planted truth whose verdicts are counted: one scenario for each row of `docs/verdict_errors.csv`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench.planted import (
    ALLOWED,
    Generator,
    Outcome,
    alike,
    association,
    best_value,
    cube,
    curved_association,
    difference,
    noise_trend,
    one_run_in_cells,
    option_trend,
    saturating,
    share,
    steps,
    trend_of_unequal_seeds,
    unequal_seeds,
)

CORRELATIONS = (0.0, 0.3, 0.5, 0.9)
MARGIN = 0.5
ALIKE = (0.0, 0.5, 0.8, 0.9)
"""Correlations of the cells of one data set: the share of its own effect in their variance."""
DESIGNS = ((1, 6), (2, 3), (3, 3), (6, 3), (6, 1))
"""Numbers of data sets, and of cells in each, such as kinds of noise."""
HARD = (
    "no effect, both follow steps of the third",
    "no effect, two families scatter 30 times more",
    "no effect, the third has an error",
)
"""Truths under which verdicts are wrong more often: docs/verdict-errors.md says how often."""
CURVES = {"saturate with": (saturating, 0.3), "are the cube of": (cube, 0.3), "follow steps of": (steps, 0.1)}
"""How two quantities depend on the third one that is given, and the standard deviation about the curve."""
GROWING = (0.2, 1.0, 2.0, 3.0)
"""Spreads at the four rates."""


@dataclass(frozen=True)
class Scenario:
    """A planted truth.

    Attributes:
        prediction: kind of prediction.
        truth: the planted truth.
        cells: number of cells, or for trends of series of cells.
        seeds: number of seeds in each cell.
        correlation: correlation of the seeds within a cell, of the cells of a data set, or of one seed's runs.
        simulate: draws a study.
    """

    prediction: str
    truth: str
    cells: int
    seeds: int
    correlation: float
    simulate: Callable[[Generator], Outcome]


def scenarios() -> Iterable[Scenario]:
    """All scenarios."""
    yield from _differences()
    yield from _dependent_differences()
    yield from _other_differences()
    yield from _best_values()
    yield from _trends()
    yield from _associations()
    yield from _partial_associations()
    yield from _unequal_seeds()
    yield from _stopped_halfway()
    for together, failing, (cells, seeds) in itertools.product(
        (False, True), (ALLOWED, 0.4), ((4, 3), (8, 12))
    ):
        often = "as often as allowed" if failing == ALLOWED else "8 times as often"
        truth = f"{often}, runs of a draw {'together' if together else 'alone'}"
        simulate = partial(share, failing=failing, cells=cells, seeds=seeds, together=together)
        yield Scenario("share of failures", truth, cells, seeds, float(together), simulate)


def _differences() -> Iterable[Scenario]:
    for cells, seeds, rho in itertools.product((1, 3, 6, 12), (3, 8), CORRELATIONS):
        for truth, mean in (("no effect", 0.0), ("effect of 1", 1.0)):
            simulate = partial(difference, means=np.full(cells, mean), seeds=seeds, correlation=rho)
            yield Scenario("difference", truth, cells, seeds, rho, simulate)
    for cells, seeds in itertools.product((3, 6, 12), (3, 8)):
        zero = np.zeros(cells)
        spread = np.linspace(0.5, 2.5, cells)
        alternating, one_other = np.full(cells, 2.0), np.full(cells, 2.0)
        alternating[1::2] = one_other[-1] = -2.0
        one_large = np.r_[zero[1:], 5.0]
        for truth, means, options in (
            ("cells of 2 and -2 in turn", alternating, {}),
            ("one cell of -2, others 2", one_other, {}),
            ("no effect, cells of unequal spread", zero, {"spread": spread}),
            ("one cell of 5, others 0, of unequal spread", one_large, {"spread": spread[::-1]}),
        ):
            simulate = partial(difference, means=means, seeds=seeds, correlation=0.0, **options)
            yield Scenario("difference", truth, cells, seeds, 0.0, simulate)


def design(data_sets: int, in_each: int) -> str:
    """The name of the prediction in a design of `DESIGNS`."""
    return f"difference, {data_sets} data set{'s' * (data_sets > 1)} of {in_each} cell{'s' * (in_each > 1)}"


def _dependent_differences() -> Iterable[Scenario]:
    for (data_sets, in_each), correlation in itertools.product(DESIGNS, ALIKE):
        for truth, mean in (("no effect", 0.0), ("effect of 1", 1.0)):
            simulate = partial(
                alike, mean=mean, data_sets=data_sets, in_each=in_each, seeds=3, correlation=correlation
            )
            name = design(data_sets, in_each)
            yield Scenario(name, truth, data_sets * in_each, 3, correlation, simulate)
    for correlation in ALIKE:
        for truth, mean in (("no effect", 0.0), ("effect of 1", 1.0)):
            simulate = partial(one_run_in_cells, mean=mean, cells=3, seeds=8, correlation=correlation)
            yield Scenario("difference, runs of a seed alike", truth, 3, 8, correlation, simulate)
    for cells, seeds in ((5, 2), (3, 3), (3, 8)):
        spread = np.r_[10.0, np.ones(cells - 1)]
        simulate = partial(difference, means=np.zeros(cells), seeds=seeds, correlation=0.0, spread=spread)
        yield Scenario(
            "difference", "no effect, one cell of 10 times the spread", cells, seeds, 0.0, simulate
        )


def _best_values() -> Iterable[Scenario]:
    inside = np.array([False, True, True, True, False])
    for truth, means in (
        ("no value is better", [0.0, 0.0, 0.0, 0.0, 0.0]),
        ("the values inside are worse by 1", [0.0, -1.0, -1.0, -1.0, 0.0]),
        ("a value outside is better by 1", [1.0, 0.0, 0.0, 0.0, 0.0]),
        ("a value inside and one outside alike", [0.0, -9.0, 0.0, -9.0, -9.0]),
        ("effect of 1 inside", [0.0, 0.0, 1.0, 0.0, 0.0]),
        ("effect of 2 inside", [0.0, 0.0, 2.0, 0.0, 0.0]),
    ):
        for cells, seeds in itertools.product((1, 3, 6), (3, 8)):
            simulate = partial(best_value, means=np.array(means), inside=inside, cells=cells, seeds=seeds)
            yield Scenario("best value", truth, cells, seeds, 0.0, simulate)


def _other_differences() -> Iterable[Scenario]:
    none = {"margin": MARGIN, "null": (-MARGIN, MARGIN), "predicted": 0}
    not_lower = {"null": (-MARGIN, -MARGIN)}
    for cells, seeds, rho in itertools.product((3, 6, 12), (3, 8), (0.0, 0.5)):
        for prediction, truth, mean, options in (
            ("no difference", "at the margin", MARGIN, none),
            ("no difference", "none", 0.0, none),
            ("not lower by the margin", "lower by the margin", -MARGIN, not_lower),
            ("not lower by the margin", "no lower", 0.0, not_lower),
        ):
            simulate = partial(
                difference, means=np.full(cells, mean), seeds=seeds, correlation=rho, **options
            )
            yield Scenario(prediction, truth, cells, seeds, rho, simulate)


def _trends() -> Iterable[Scenario]:
    rate, option = "trend with the noise rate", "trend with a hyper-parameter"
    for series, seeds, rho in itertools.product((1, 4, 6), (3, 8), CORRELATIONS):
        for truth, slope in (("no effect", 0.0), ("slope of 4", 4.0)):
            simulate = partial(noise_trend, slopes=np.full(series, slope), seeds=seeds, correlation=rho)
            yield Scenario(rate, truth, series, seeds, rho, simulate)
    for seeds in (3, 8):
        slopes = np.array([4.0, 4.0, 4.0, -4.0])
        simulate = partial(noise_trend, slopes=slopes, seeds=seeds, correlation=0.0, sd=0.5)
        yield Scenario(rate, "slopes of 4, 4, 4 and -4", 4, seeds, 0.0, simulate)
    for cells, rho in itertools.product((3, 6), CORRELATIONS):
        for truth, slope in (("no effect", 0.0), ("slope of 1", 1.0)):
            simulate = partial(option_trend, slope=slope, cells=cells, seeds=3, correlation=rho)
            yield Scenario(option, truth, cells, 3, rho, simulate)


def _associations() -> Iterable[Scenario]:
    for cells, (families, kin) in itertools.product((3, 6), ((6, 1), (9, 1), (3, 4), (6, 4))):
        for truth, shared in (("no effect", 0.0), ("correlation of 0.9", 0.9)):
            simulate = partial(association, shared=shared, cells=cells, families=families, kin=kin)
            yield Scenario(f"association, {families} families of {kin}", truth, cells, 1, 0.0, simulate)
    simulate = partial(association, shared=0.9, cells=4, families=9, kin=1, reversed_cell=3)
    yield Scenario(
        "association, 9 families of 1", "correlation of 0.9, -0.9 in one cell", 4, 1, 0.0, simulate
    )


def _partial_associations() -> Iterable[Scenario]:
    for families, confounding in itertools.product((6, 9, 20, 40), (0.3, 0.8, 0.95)):
        for truth, shared in (("no effect", 0.0), ("correlation of 0.9", 0.9)):
            simulate = partial(
                association, shared=shared, cells=1, families=families, kin=1, confounding=confounding
            )
            name = f"partial association, {families} families"
            words = f"{truth}, both correlate {confounding} with the third"
            yield Scenario(name, words, 1, 1, 0.0, simulate)
    for families in (9, 12, 20):
        name = f"partial association along curves, {families} families"
        for words, (shape, noise) in CURVES.items():
            simulate = partial(curved_association, shape=shape, families=families, noise=noise)
            yield Scenario(name, f"no effect, both {words} the third", 1, 1, 0.0, simulate)
        for words, options in (
            ("two families scatter 30 times more", {"scattered": 2}),
            ("the third has an error", {"error": 1 / 3}),
        ):
            simulate = partial(curved_association, shape=np.asarray, families=families, **options)
            yield Scenario(name, f"no effect, {words}", 1, 1, 0.0, simulate)


def _unequal_seeds() -> Iterable[Scenario]:
    """Studies in which few seeds hide that one cell, or the end of a line, scatters more."""
    name = "difference, one cell scatters more"
    for seeds, times in (((2, 3, 5, 5, 8), 10), ((2,) * 10, 30), ((2,) * 5, 30), ((3,) * 6, 10)):
        spread = np.r_[float(times), np.ones(len(seeds) - 1)]
        simulate = partial(unequal_seeds, means=0.0, seeds=seeds, spread=spread)
        others = "" if len(set(seeds)) == 1 else f", {seeds[1]} to {seeds[-1]} seeds in the others"
        truth = f"no effect, one cell of {times} times the spread{others}"
        yield Scenario(name, truth, len(seeds), seeds[0], 0.0, simulate)
    for seeds in ((2,) * 5, (2, 8, 8, 8, 8)):
        spread, means = (30.0, 1.0, 1.0, 1.0, 1.0), (0.0, 200.0, 0.0, 0.0, 0.0)
        simulate = partial(unequal_seeds, means=means, seeds=seeds, spread=spread)
        truth = f"one cell of 200, one of 30 times the spread, {seeds[1]} seeds in the others"
        yield Scenario(name, truth, len(seeds), seeds[0], 0.0, simulate)
    for series, seeds in ((1, 2), (1, 3), (1, 8), (1, 1), (2, 1), (5, 1)):
        simulate = partial(
            trend_of_unequal_seeds, series=series, seeds=(seeds,) * len(GROWING), spread=GROWING
        )
        yield Scenario("trend, spread grows with the rate", "no effect", series, seeds, 0.0, simulate)


def _stopped_halfway() -> Iterable[Scenario]:
    """Studies whose last cells have one seed, and a larger spread."""
    for truth, mean in (("no effect", 0.0), ("effect of 1", 1.0)):
        for seeds, spread in (((5, 5, 1), (1.0, 3.0, 5.0)), ((8, 8, 1), (0.5, 1.0, 4.0))):
            simulate = partial(unequal_seeds, means=mean, seeds=seeds, spread=spread)
            yield Scenario("difference, one cell of one seed", truth, len(seeds), seeds[0], 0.0, simulate)
    for series in (1, 6):
        simulate = partial(
            trend_of_unequal_seeds, series=series, seeds=(5, 3, 1, 1), spread=(1.0, 1.0, 2.0, 3.0)
        )
        yield Scenario("trend, two rates of one seed", "no effect", series, 5, 0.0, simulate)
