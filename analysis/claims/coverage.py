"""The runs that a comparison has, and those that it lacks: not run, failed, diverged, not measured, not converged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

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
    values = pd.concat([what.values(runs) for what in quantities], axis=1).sum(axis=1, skipna=False)
    unconverged = np.logical_or.reduce([what.unconverged(runs) for what in quantities])
    states = dict.fromkeys(_cells(grid), NO_RUN)
    for cell, value, broken, open_ in zip(_cells(runs), values, _broken(runs), unconverged, strict=True):
        reason = "" if np.isfinite(value) else broken or (NOT_CONVERGED if open_ else NO_VALUE)
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
    return Coverage(missing, len(runs), int(unconverged.sum()), reasons)


def coverage_of_all(table: pd.DataFrame, quantities: Sequence[Quantity]) -> Coverage:
    """The part of all cells and seeds of a table that the runs of each method cover."""
    found = Coverage()
    for title, runs in table.groupby("method", sort=True):
        found += coverage(table, runs, str(title), quantities)
    return found


def not_by_study(runs: pd.DataFrame) -> tuple[str, ...]:
    """The data and noise of studies that did not measure a quantity, as missing parts."""
    places = runs[["dataset", "noise_kind"]].drop_duplicates().itertuples(index=False)
    return tuple(f"{dataset}, {kind}: {NOT_BY_STUDY}" for dataset, kind in places)


def _broken(runs: pd.DataFrame) -> list[str]:
    """For each run the reason why none of its numbers counts; empty if they count."""
    states = np.select([marked(runs, "failed"), marked(runs, "diverged")], [FAILED, DIVERGED], "")
    return [str(state) for state in states]


def _cells(runs: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(zip(*(runs[name].tolist() for name in PAIRED_BY), strict=True))
