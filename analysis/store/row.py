"""A run's row of the table: numbers and words from its file."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from analysis.bound import bound_scalars
from analysis.store.alarm_columns import alarm_columns
from analysis.store.early_columns import early_columns
from analysis.store.history_columns import history_columns
from analysis.store.run_file import StoredRun, config_of, faults_named, metrics_of, opened
from analysis.store.safe_hdf5 import check_content, check_results
from analysis.store.sample_columns import sample_columns
from analysis.store.stability_edge import EDGES, edge_columns
from analysis.store.weight_columns import matrices_of, weight_columns
from ncsam.alignment import ALIGNMENT_METRICS
from ncsam.training import METRICS

TEXTS = ("dataset", "noise_kind", "method", "method_name", "loss", "hyperparameters", "tuned", "changed")
"""Columns of the table that hold words."""
COLUMNS = (*TEXTS, *("noise_rate", "seed", "diverged", "epochs", "classes", "label_smoothing"), *METRICS)
"""Columns that every table has."""

PLAIN = (int, float, bool, str, type(None))
"""Types of a hyper-parameter's value."""
BESIDE = (
    # what the configuration and the labels tell
    *("mixup", "candidates", "realised_noise_rate", "train_samples"),
    # what is added where several studies are judged
    *("study", "failed", "option"),
)
"""Columns beside `COLUMNS` that no measurement fills."""
BY_PROBE = re.compile(r"mean_probe_.+|.+_at_loss_.+|.+_equal_loss_in_.+")
"""Columns of probes, whose names depend on the network and on the levels of the loss."""
OWN_NUMBERS = "own"
"""Group of a run file that holds the numbers of the user's measures."""
OWN_COLUMNS: dict[str, str] = {}
"""Column -> the user's measure that fills it, of the measures that are registered in this process."""
PARTS = (
    "jacobian_trace",
    "jacobian_top",
    "uncertainty",
    "gauss_newton_trace",
    "functional_norm",
    "functional_smallest",
)
"""Fields of the decomposed curvature that enter the table."""
GRADIENT_NOISE = {
    "gradient_norm": ("gradient_noise/observed", "gradient_norm"),
    "gradient_noise": ("gradient_noise/observed", "value"),
    "gradient_noise_error": ("gradient_noise/observed", "standard_error"),
}
"""Column without its suffix -> (group, field)."""


@dataclass(frozen=True)
class Record:
    """The record of a finished run that its study keeps.

    Attributes:
        fingerprint: fingerprint of its configuration.
        data: digest of its data; empty if the file is older than these digests.
        row: its row of the table.
        trained: number of its training samples.
    """

    fingerprint: str
    data: str
    row: dict[str, Any]
    trained: int


def read_record(path: Path) -> Record:
    """The record of a run file.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is no whole run file.
    """
    with opened(path) as file:
        return record_of(file)


def record_of(file: h5py.File) -> Record:
    """The record of an open run file.

    Raises:
        BrokenFileError: the content makes no sense. Later errors are those of a column's code.
    """
    stored = config_of(file)
    with faults_named(file.filename):
        check_results(file)
        check_content(file)
        words, own = _words_of(stored), _own_numbers(file)
    row = {**words, **_numbers_of(file, stored)}
    row.update({name: value for name, value in own.items() if name not in row})
    return Record(stored.config.fingerprint, stored.data, row, len(file["labels/observed"]))


def scalars(path: Path) -> dict[str, Any]:
    """A run's row of the table."""
    return read_record(path).row


def _words_of(stored: StoredRun) -> dict[str, Any]:
    """The columns that the configuration tells.

    Raises:
        ValueError: a word cannot be printed, or the hyper-parameters are no plain values by name.
    """
    row: dict[str, Any] = stored.config.identity._asdict()
    method = stored.config.method
    row["method_name"] = method.name
    row["loss"] = method.loss.name
    row["label_smoothing"] = float(method.loss_options(stored.hyperparameters).get("label_smoothing", 0.0))
    row["mixup"] = method.mixup or 0.0
    row["candidates"] = len(method.candidates)
    row["diverged"] = stored.diverged
    row["epochs"] = stored.epochs
    row["hyperparameters"] = json.dumps(stored.hyperparameters, sort_keys=True)
    row["tuned"] = json.dumps(method.tuned)
    row["changed"] = json.dumps(method.changed)
    for name in TEXTS:
        if not row[name].isprintable():
            raise ValueError(f"{name} holds what cannot be printed")
    check_settings(row["hyperparameters"], row["tuned"], row["changed"])
    return row


def _numbers_of(file: h5py.File, stored: StoredRun) -> dict[str, Any]:
    """The columns that the rest of a checked file tells."""
    history = metrics_of(file)
    row: dict[str, Any] = {}
    row.update(history_columns(history))
    wrong = file["labels/clean"][()] != file["labels/observed"][()]
    row["realised_noise_rate"], row["train_samples"] = float(wrong.mean()), len(wrong)
    row.update(early_columns(history, row["realised_noise_rate"]))
    row.update(alarm_columns(history, [name for name, _ in matrices_of(file)], row["best_epoch"]))
    row["classes"] = len(file["labels/transition"])
    row.update(_numbers_of_measures(file))
    row.update(edge_columns(stored, row))
    row.update(sample_columns(file))
    row.update(weight_columns(file))
    row.update(bound_scalars(file))
    return row


def is_built_in(column: str) -> bool:
    """Whether ncsam fills a column of this name itself, in the table of any study."""
    return column in _names_of_numbers() or BY_PROBE.fullmatch(column) is not None


@cache
def _names_of_numbers() -> frozenset[str]:
    """The columns that do not depend on the network. What was not measured is a column of NaN."""
    nothing: Any = {}
    metrics = (*METRICS, *ALIGNMENT_METRICS, "perturbation_norm")
    history = {name: np.full(1, math.nan) for name in metrics}
    return frozenset(
        (
            *(*COLUMNS, *BESIDE, *EDGES, *history_columns(history), *early_columns(history, math.nan)),
            *(*alarm_columns(history, [], 1), *_numbers_of_measures(nothing)),
            *(*sample_columns(nothing), *weight_columns(nothing), *bound_scalars(nothing)),
        )
    )


def check_settings(hyperparameters: str, tuned: str, changed: str) -> None:
    """Checks the three columns that hold JSON.

    Raises:
        ValueError: not plain values by name, not names of some of these, or not names of changed settings.
    """
    settings, names = json.loads(hyperparameters), json.loads(tuned)
    if not isinstance(settings, dict) or not all(type(value) in PLAIN for value in settings.values()):
        raise ValueError(f"hyperparameters holds {hyperparameters[:100]!r}")
    if not isinstance(names, list) or not all(name in settings for name in names):
        raise ValueError(f"tuned holds {tuned[:100]!r}")
    others = json.loads(changed)
    if not isinstance(others, list) or not all(isinstance(name, str) for name in others):
        raise ValueError(f"changed holds {changed[:100]!r}")


def _own_numbers(file: h5py.File) -> dict[str, float]:
    """The columns that the user's measures fill."""
    found = {}
    for group in file[OWN_NUMBERS].values() if OWN_NUMBERS in file else ():
        for name, value in zip(group["name"].asstr()[()], group["value"][()], strict=True):
            if not name.isidentifier():
                raise ValueError(f"{group.name} names a column {name!r}")
            found[str(name)] = float(value)
    return found


def _numbers_of_measures(file: h5py.File) -> dict[str, float]:
    row = {}
    for loss in ("observed", "clean"):
        row.update(_measured_scalars(file, loss))
    for group in ("right", "wrong"):
        row.update(_scalars(file, _fields_of_parts(f"observed_{group}"), group))
    row.update(_scalars(file, GRADIENT_NOISE, "observed"))
    return row


def _measured_scalars(file: h5py.File, loss: str) -> dict[str, float]:
    groups = {
        "top_eigenvalue": (f"curvature/{loss}/top_eigenvalues", "values"),
        "top_eigenvalue_residual": (f"curvature/{loss}/top_eigenvalues", "residuals"),
        "top_eigenvalue_converged": (f"curvature/{loss}/top_eigenvalues", "converged"),
        "trace": (f"curvature/{loss}/trace", "value"),
        "trace_standard_error": (f"curvature/{loss}/trace", "standard_error"),
        "trace_converged": (f"curvature/{loss}/trace", "converged"),
        "sharpness": (f"sharpness/{loss}", "value"),
        "sharpness_one_step": (f"sharpness/{loss}", "one_step"),
        "sharpness_rho": (f"sharpness/{loss}", "rho"),
        "sharpness_converged": (f"sharpness/{loss}", "converged"),
        "sharpness_spread": (f"sharpness/{loss}", "spread"),
        "sharpness_elementwise": (f"sharpness_elementwise/{loss}", "value"),
        "sharpness_elementwise_converged": (f"sharpness_elementwise/{loss}", "converged"),
        "sharpness_filter": (f"sharpness_filter/{loss}", "value"),
        "sharpness_filter_converged": (f"sharpness_filter/{loss}", "converged"),
        "relative_flatness": (f"flatness/{loss}", "value"),
        "relative_flatness_converged": (f"flatness/{loss}", "converged"),
        "critical_learning_rate": (f"critical_sharpness/{loss}", "learning_rate"),
        "critical_learning_rate_found": (f"critical_sharpness/{loss}", "converged"),
        **_fields_of_parts(loss),
    }
    return _scalars(file, groups, loss)


def _fields_of_parts(loss: str) -> dict[str, tuple[str, str]]:
    """Column without its suffix -> (group, field), of the decomposed curvature and its flags."""
    group = f"curvature/{loss}/parts"
    return {
        **{name: (group, name) for name in PARTS},
        **{f"{name}_converged": (group, "converged") for name in PARTS},
    }


def _scalars(file: h5py.File, fields: dict[str, tuple[str, str]], suffix: str) -> dict[str, float]:
    """Column without its suffix -> (group, field), as numbers; NaN where a file lacks it."""
    return {
        f"{name}_{suffix}": float(np.ravel(file[f"{group}/{field}"][()])[0])
        if f"{group}/{field}" in file
        else math.nan
        for name, (group, field) in fields.items()
    }
