"""The runs that a comparison has, and those that it lacks: not run, failed, diverged, not measured, not converged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.claims.broken_runs import marked
from analysis.claims.quantities import Quantity
from analysis.claims.variants import PAIRED_BY
from landscape.results.wording import percents

NO_RUN, DIVERGED, NOT_CONVERGED, NO_VALUE = "no run", "diverged", "not converged", "not measured"
FAILED = "failed"
NOT_BY_STUDY = "not measured by this study"
BROKEN = (FAILED, DIVERGED)
"""Reasons that count before all others."""


@dataclass(frozen=True)
class Coverage:
    """The runs of a comparison.

    Attributes:
        missing: parts of the study's grid without a run, or without a number, each with the reason.
        runs: number of runs that exist.
        not_converged: number of runs whose value did not converge. Such a value is not used.
        reasons: why runs that exist have no number: some of `FAILED`, `DIVERGED`, `NOT_CONVERGED` and
            `NO_VALUE`.
    """

    missing: tuple[str, ...] = ()
    runs: int = 0
    not_converged: int = 0
    reasons: tuple[str, ...] = ()

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(
            tuple(dict.fromkeys((*self.missing, *other.missing))),
            self.runs + other.runs,
            self.not_converged + other.not_converged,
            tuple(sorted({*self.reasons, *other.reasons})),
        )


def coverage(grid: pd.DataFrame, runs: pd.DataFrame, title: str, quantities: Sequence[Quantity]) -> Coverage:
    """The part of a grid that the runs of one method cover.

    Args:
        grid: the method should have one run in each cell and seed of these runs.
        runs: the runs of the method.
        title: title of the method.
        quantities: each run should have a value of all of them.
    """
    return _covered(_cells(grid), _States.of(runs, quantities), title)


def coverage_of_all(table: pd.DataFrame, quantities: Sequence[Quantity]) -> Coverage:
    """The part of all cells and seeds of a table that the runs of each method cover."""
    cells, states = _cells(table), _States.of(table, quantities)
    found = Coverage()
    for title, places in sorted(table.groupby("method").indices.items()):
        found += _covered(cells, states.at(np.asarray(places)), str(title))
    return found


@dataclass(frozen=True)
class _States:
    """The cell of each run, whether its value did not converge, and why it has no number; empty if it has one."""

    cells: list[tuple[Any, ...]]
    unconverged: NDArray[np.bool]
    reasons: list[str]

    @classmethod
    def of(cls, runs: pd.DataFrame, quantities: Sequence[Quantity]) -> _States:
        there = np.logical_and.reduce([np.isfinite(what.values(runs).to_numpy()) for what in quantities])
        unconverged = np.logical_or.reduce([what.unconverged(runs).to_numpy() for what in quantities])
        states = [
            ~there & marked(runs, "failed").to_numpy(),
            ~there & marked(runs, "diverged").to_numpy(),
            ~there & unconverged,
            ~there,
        ]
        reasons = np.select(states, [FAILED, DIVERGED, NOT_CONVERGED, NO_VALUE], "")
        return cls(_cells(runs), unconverged, reasons.tolist())

    def at(self, places: NDArray[np.int64]) -> _States:
        """Those of some of the runs."""
        return _States(
            [self.cells[place] for place in places],
            self.unconverged[places],
            [self.reasons[place] for place in places],
        )


def _covered(grid: list[tuple[Any, ...]], runs: _States, title: str) -> Coverage:
    """The part of the cells of a grid that the runs of one method cover."""
    states = dict.fromkeys(grid, NO_RUN)
    for cell, reason in zip(runs.cells, runs.reasons, strict=True):
        # if a cell has several runs, the worst state counts
        if reason in BROKEN or states[cell] not in BROKEN:
            states[cell] = reason or ("" if states[cell] == NO_RUN else states[cell])
    seeds: dict[tuple[Any, ...], list[str]] = {}
    for (*noise, seed), reason in sorted(states.items()):
        if reason:
            seeds.setdefault((*noise, reason), []).append(str(seed))
    words = percents(rate for *_, rate, _ in states)
    missing = tuple(
        f"{title}, {dataset}, {kind} {words[rate]}, seed {', '.join(of_reason)}: {reason}"
        for (dataset, kind, rate, reason), of_reason in seeds.items()
    )
    reasons = tuple(sorted({*states.values()} & {*BROKEN, NOT_CONVERGED, NO_VALUE}))
    return Coverage(missing, len(runs.cells), int(runs.unconverged.sum()), reasons)


def not_by_study(runs: pd.DataFrame) -> tuple[str, ...]:
    """The data and noise of studies that did not measure a quantity, as missing parts."""
    places = runs[["dataset", "noise_kind"]].drop_duplicates().itertuples(index=False)
    return tuple(f"{dataset}, {kind}: {NOT_BY_STUDY}" for dataset, kind in places)


def _cells(runs: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(zip(*(runs[name].tolist() for name in PAIRED_BY), strict=True))
