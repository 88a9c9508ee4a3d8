"""Which column of the table says whether the numbers of another column converged.

A search, or an estimate with random probes, may end before it converges. Each column of such numbers has a flag: a
column that is 1 where the number converged, below 1 where it did not, and NaN where the run's file does not say.
"""

from __future__ import annotations

import re

from analysis.store.at_loss import AT_LOSS, of_parts
from analysis.store.row import PARTS

BY_FORM = (
    # the mean of the flags of the probed epochs, of a measure with several numbers
    (rf"mean_probe_(?:{'|'.join(PARTS)})_(observed|clean)", r"mean_probe_curvature_parts_converged_\1"),
    (r"mean_probe_trace_of_.+_(observed|clean)", r"mean_probe_layer_traces_converged_\1"),
    (
        r"mean_probe_critical_(?:sharpness|learning_rate|steps)_(observed|clean)",
        r"mean_probe_critical_converged_\1",
    ),
    (
        rf"(?:{'|'.join(filter(of_parts, AT_LOSS))})_observed_at_loss_(.+)",
        r"curvature_parts_converged_at_loss_\1",
    ),
    (r"sharpness_observed_at_loss_(.+)", r"sharpness_converged_at_loss_\1"),
    (r"critical_learning_rate_(observed|clean)", r"critical_learning_rate_found_\1"),
    # the terms that hold the maximum that the search found
    (r"bound_(.+)_(?:right|empirical)", r"bound_\1_slack_converged"),
    (r"trace_(?:alarm|alarm_lead|rise)", "mean_probe_trace_converged_observed"),
    (r"(?:layer|loss)_(?:alarm|alarm_lead|rise)", "mean_probe_layer_traces_converged_observed"),
)
"""Pattern of a column -> its flag, where the flag is not named after the column."""


def flags_of(column: str) -> tuple[str, ...]:
    """The columns that may be the flag of a column, in the order in which they are looked for."""
    measure, _, loss = column.rpartition("_")
    by_form = [found.expand(flag) for pattern, flag in BY_FORM if (found := re.fullmatch(pattern, column))]
    return f"{column}_converged", f"{measure}_converged_{loss}", *by_form
