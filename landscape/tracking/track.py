"""The metrics of a tracker, as one result."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.results.shown import DrawnResult


@result
class Track(DrawnResult):
    """The metrics of all looks at a training."""

    step: NDArray[np.int64] = described("optimizer steps done at the look", dims=("look",))
    epoch: NDArray[np.int64] = described("epochs finished at the look", dims=("look",))
    objective: NDArray[np.str_] = described("name of the objective", dims=("objective",), coordinate=True)
    metric: NDArray[np.str_] = described("name of the metric", dims=("metric",), coordinate=True)
    values: FloatArray = described(
        "what was found; NaN where a metric was not measured or is not defined",
        dims=("look", "objective", "metric"),
    )
    measured: NDArray[np.bool_] = described("the metric was measured at the look", dims=("look", "metric"))
    unit: NDArray[np.str_] = described("unit of the metric", dims=("metric",))
    meaning: NDArray[np.str_] = described("what the metric is", dims=("metric",))
    training_seconds: FloatArray = described(
        "time since the beginning that the tracker did not take", unit="s", dims=("look",)
    )
    measuring_seconds: FloatArray = described("time that the tracker took so far", unit="s", dims=("look",))

    def of(self, metric: str, objective: str | None = None) -> FloatArray:
        """One metric of one objective, (look,). A track with one objective needs no name of it.

        Raises:
            KeyError: no such metric or objective.
        """
        names = list(self.objective)
        if objective is None and len(names) == 1:
            objective = names[0]
        if objective not in names:
            raise KeyError(f"objective: must be one of {', '.join(names)}, got {objective!r}")
        if metric not in list(self.metric):
            raise KeyError(f"metric: must be one of {', '.join(self.metric)}, got {metric!r}")
        return np.asarray(self.values[:, names.index(objective), list(self.metric).index(metric)])
