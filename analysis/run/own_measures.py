"""The user's measures: functions of a trained model that return numbers, which become columns of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.run.measurements import MEASURES, Measure, Results
from analysis.run.subject import Subject
from analysis.store import OWN_COLUMNS, OWN_NUMBERS
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.results.shown import Result


@result
class OwnNumbers(Result):
    """The numbers of one of the user's measures."""

    name: NDArray[np.str_] = described("column of the table", dims=("name",), coordinate=True)
    value: FloatArray = described("the number; NaN where it is not defined", dims=("name",))


def register_measure(name: str, columns: Sequence[str], of: Callable[[Subject], Mapping[str, float]]) -> None:
    """Adds a measure that every final run of a study takes.

    Args:
        name: name of the measure, also for `ncsam measure --only`.
        columns: columns of the table of runs that the measure fills. Claims can name them.
        of: the trained model in evaluation mode with its data (`.model`, `.data`, `.objectives`) -> column -> number.
            Before the first run of a study it is called once with an untrained model.

    Raises:
        ValueError: the name is taken, no column is given, or a column is no Python name.
    """
    if name in MEASURES:
        raise ValueError(f"name: the measure {name!r} is registered already; choose another")
    if not columns or not all(column.isidentifier() for column in columns):
        raise ValueError(f"columns: must be names of letters, digits and underscores, got {list(columns)}")
    group = f"{OWN_NUMBERS}/{name}"

    def measured(subject: Subject) -> Results:
        # weights that are read from a file come in training mode
        subject.model.eval()
        found = of(subject)
        if set(found) != set(columns):
            raise ValueError(
                f"{name}: must return the numbers {', '.join(columns)}, got {', '.join(found) or 'none'}"
            )
        values = np.array([float(found[column]) for column in columns])
        return {group: OwnNumbers(np.array(columns), values)}

    OWN_COLUMNS.update(dict.fromkeys(columns, name))
    # a file that names no version counts as version 1, and may lack this measure
    MEASURES[name] = Measure(name, measured, (group,), ("samples",), version=2)


def is_own(measure: Measure) -> bool:
    """Whether the user has registered the measure."""
    return any(group.startswith(f"{OWN_NUMBERS}/") for group in measure.groups)
