"""Calls the user's measures once before the first run: otherwise a mistake in one is met after each training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from analysis.plan import Run
from analysis.plan.own_parts import keeping_lines
from analysis.run.context import RunContext
from analysis.run.measurements import MEASURES
from analysis.run.one_run import Report
from analysis.run.own_measures import is_own
from analysis.run.run_data import load_run_data
from analysis.run.subject import Subject
from analysis.run.training import new_model
from ncsam.random_state import borrowed_generators


def try_own_measures(run: Run, context: RunContext, *, report: Report = lambda *_: None) -> None:
    """Takes each of the user's measures of a run's untrained model. What they return is checked and thrown away.

    No random state changes. `run`, `context` and `report` are as for `execute`.

    Raises:
        Exception: whatever a measure raises.
    """
    context.load_own_parts()
    report("trying your measures", 0, 1)
    with _same_random_states(torch.device(context.device)):
        data = load_run_data(run.config, context)
        subject = Subject(new_model(run.config, data, "weights"), run.config, data)
        with keeping_lines():
            for measure in filter(is_own, MEASURES.values()):
                measure.of(subject)


@contextmanager
def _same_random_states(device: torch.device) -> Iterator[None]:
    """After the block, torch, numpy and Python draw as if it had not been there."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with borrowed_generators(device):
            yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)
