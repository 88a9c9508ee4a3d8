"""How numbers of runs and effects are written, in the terminal and in the report alike."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from analysis.claims import Effect


def chosen(text: str) -> str:
    """The tuned hyper-parameters of a run, in a few words."""
    settings = json.loads(text)
    return " ".join(
        f"{name} {settings[name]:g}" for name in ("rho", "strength", "flip_ratio") if name in settings
    )


def spread(values: pd.Series, digits: int) -> str:
    """Mean ± standard deviation over runs; a dash where there is no number."""
    if values.isna().all():
        return "-"
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def interval(effect: Effect) -> str:
    """Estimate and interval to three digits; a dash where there is none."""
    if not np.isfinite(effect.estimate):
        return "–"
    if not np.isfinite(effect.low):
        return f"{effect.estimate:+.3g}"
    return f"{effect.estimate:+.3g} [{effect.low:+.3g}, {effect.high:+.3g}]"


def p_value(effect: Effect) -> str:
    """The p-value of the verdict, after Holm's correction."""
    p = effect.deciding_p
    if not np.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
