"""The user's measures: functions of a trained model that return numbers, which become columns of the table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.run.measurements import MEASURES, Measure, Results
from analysis.run.subject import Subject
from analysis.store import OWN_COLUMNS, OWN_NUMBERS, is_built_in
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.results.shown import Result

NAME = r"[\w -]+"
"""Names of measures, which become groups of the run files."""


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
        ValueError: the name is taken or is no name, no column is given, or a column is no Python name or is filled
            otherwise.
    """
    if name in MEASURES:
        raise ValueError(f"name: the measure {name!r} is registered already; choose another")
    if not re.fullmatch(NAME, name):
        raise ValueError(f"name: must be of letters, digits, '-', '_' and spaces, got {name!r}")
    _check_columns(name, columns)
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


def _check_columns(name: str, columns: Sequence[str]) -> None:
    """Raises ValueError unless each column can be a name, and nothing else fills it."""
    if not columns or not all(column.isidentifier() for column in columns):
        raise ValueError(f"columns: must be names of letters, digits and underscores, got {list(columns)}")
    for column in columns:
        fills = f"columns: {column!r} of the measure {name!r}"
        if is_built_in(column):
            raise ValueError(f"{fills} is named like a column that ncsam fills itself; choose another")
        if column in OWN_COLUMNS:
            raise ValueError(
                f"{fills} is a column of the measure {OWN_COLUMNS[column]!r} already; choose another"
            )
    if len(set(columns)) < len(columns):
        raise ValueError(f"columns: the measure {name!r} names one twice, got {list(columns)}")


def is_own(measure: Measure) -> bool:
    """Whether the user has registered the measure."""
    return any(group.startswith(f"{OWN_NUMBERS}/") for group in measure.groups)
