"""Formats of numbers of runs and effects, the same in the terminal and in the report."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from analysis.claims import Effect


def chosen(runs: pd.DataFrame) -> str:
    """The tuned hyper-parameters of the runs of one method and noise rate, in a few words."""
    first = runs.iloc[0]
    settings = json.loads(first["hyperparameters"])
    return " ".join(f"{name} {_short(settings[name])}" for name in json.loads(first["tuned"]))


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def spread(values: pd.Series, digits: int) -> str:
    """Mean ± standard deviation over runs; a dash if there is no number."""
    if values.isna().all():
        return "-"
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def interval(effect: Effect) -> str:
    """Estimate and interval to three digits; a dash if there is no estimate."""
    if not np.isfinite(effect.estimate):
        return "–"
    if not np.isfinite(effect.low):
        return f"{effect.estimate:+.3g}"
    return f"{effect.estimate:+.3g} [{effect.low:+.3g}, {effect.high:+.3g}]"
