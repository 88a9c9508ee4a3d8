"""Holm's correction over the predictions of a family of claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from statsmodels.stats.multitest import multipletests

from analysis.statistics.effect import Effect
from analysis.statistics.resampling import Values


def adjusted(effects: Sequence[Effect]) -> list[Effect]:
    """The effects with the p-values by which a wrong verdict in the whole family has a probability of 5%.

    Effects, equivalences and reversals are corrected apart: where one kind of null hypothesis is true, just the
    verdicts of that kind can be wrong. Tests that were not possible do not count.
    """
    by_kind = [
        _holm(np.array([getattr(effect, field) for effect in effects], dtype=np.float64))
        for field in ("p_value", "equivalence_p", "reversal_p")
    ]
    tests = int(np.isfinite([effect.p_value for effect in effects]).sum())
    return [
        replace(effect, adjusted=(float(p), float(equivalence), float(reversal)), tests=max(1, tests))
        for effect, p, equivalence, reversal in zip(effects, *by_kind, strict=True)
    ]


def _holm(p_values: Values) -> Values:
    known = np.isfinite(p_values)
    if known.sum() < 2:
        return p_values
    result = np.full_like(p_values, np.nan)
    result[known] = multipletests(p_values[known], method="holm")[1]
    return result
