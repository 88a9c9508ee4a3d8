"""The choice between the candidates of a method, from the trials that compare them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from analysis import store
from analysis.plan import Choice, Run, Study, selection_runs


def choose(study: Study, run: Run, records: dict[str, store.Record]) -> Choice | None:
    """The candidate with the best mean score on validation samples with observed labels.

    The first of equal scores wins. A candidate that diverged has the score NaN. If all candidates diverged, the first
    is chosen, and its run will be recorded as diverged. If a trial is missing, the result is None: a failure that may
    not happen again must not change the choice.
    """
    candidates = run.config.method.candidates
    trials = selection_runs(study, run)
    if not trials:
        return only_choice(run)
    if not all(trial.path in records for trial in trials):
        return None
    # trials are ordered by candidate
    repeats = len(trials) // len(candidates)
    found = np.array([_score(trial, records[trial.path]) for trial in trials])
    found = found.reshape(len(candidates), repeats, 2)
    scores = found[:, :, 0].mean(axis=1)
    errors = np.sqrt(found[:, :, 1].sum(axis=1)) / repeats
    best = int(np.where(np.isnan(scores), -1.0, scores).argmax())
    return Choice(candidates[best], candidates, scores.tolist(), errors.tolist())


def _score(trial: Run, record: store.Record) -> tuple[float, float]:
    """Validation accuracy of a trial at its last epoch, and the variance of this share; NaN if the trial diverged."""
    # finite outputs may have a loss that is not finite
    accuracy = math.nan if record.row["diverged"] else record.row["test_accuracy"]
    fraction = trial.config.selection.validation_fraction
    held_out = record.trained * fraction / (1 - fraction)
    return accuracy, accuracy * (1 - accuracy) / held_out


def only_choice(run: Run) -> Choice:
    """The choice of the first candidate, for a method with no other candidate."""
    candidates = run.config.method.candidates
    return Choice(candidates[0], candidates, [], [])


def check_choice(root: Path, run: Run, records: dict[str, store.Record], choice: Choice) -> None:
    """Raises StoreError if the run has finished with other hyper-parameters than are chosen now.

    This happens if two candidates are close and lost trials were repeated on another device.
    """
    if run.path in records:
        before = json.loads(records[run.path].row["hyperparameters"])
        if before != choice.hyperparameters:
            raise store.StoreError(
                f"out: {root / run.path} was trained with {before}, and {choice.hyperparameters} are chosen now; "
                "delete the method's runs to train all of them alike, or choose another --out"
            )
