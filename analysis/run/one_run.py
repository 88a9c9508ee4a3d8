"""One run, from its configuration to its file: load, corrupt, train, measure, write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from analysis import store
from analysis.bound import measure_bounds
from analysis.plan import Choice, Run
from analysis.plan.data import data_digest, load_data, observed_labels
from analysis.plan.seeds import derived_seed
from analysis.run.measurements import measure, subset
from analysis.run.probes import study_probes
from analysis.run.training import Training
from ncsam import NoisyLabels, Split

Report = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)."""


def execute(
    run: Run,
    choice: Choice,
    root: Path,
    *,
    data_dir: Path | None,
    device: str,
    report: Report,
    expected_data: str = "",
) -> store.Record:
    """Trains and measures one run and writes its file, resuming from its checkpoint if there is one.

    Args:
        run: which.
        choice: of its hyper-parameters.
        root: the study folder.
        data_dir: where data files are.
        device: where to train and measure.
        report: is told of the progress.
        expected_data: digest of the data that the study was checked with; empty: not looked at.

    Returns:
        What the study needs to know of the run.

    Raises:
        FileNotFoundError, ValueError: as `load_dataset` and the store do.
    """
    config = run.config
    report("loading", 0, config["training"]["epochs"])
    dataset = load_data(config, data_dir)
    labels = observed_labels(config, dataset, data_dir)
    data = data_digest(config, dataset, data_dir)
    if expected_data not in ("", data):
        # such as a machine with other files, or a worker that holds what it read before they changed
        raise ValueError(
            "--data-dir: this worker has other data than the study; give it the same, start it anew"
        )
    train, held_out = dataset.train, dataset.test
    if config["purpose"] == "selection":
        # test data take no part: candidates are judged on training samples held out, as they were labelled
        train, labels, held_out = _validation_split(
            train, labels, config["selection"]["validation_fraction"], derived_seed(config, "validation")
        )
    train, labels, held_out = train.to(device), labels.to(device), held_out.to(device)

    path = root / run.path
    started = fingerprint_of_training(run, choice, data)
    checkpoint = path.with_name(f"{path.stem}.{started[:12]}.ckpt")
    checkpoint_of_estimate = checkpoint.with_suffix(".transition.ckpt")
    training = Training(config, dataset, train, labels, held_out, device, started)
    spent = 0.0
    transition = labels.transition
    if config["method"]["loss"]["transition"] == "estimated":
        transition, spent = training.estimated_transition(
            checkpoint_of_estimate, partial(report, "estimating transitions")
        )
    model = training.new_model("weights")
    method = training.method(model, transition, choice.hyperparameters)
    method.gradient_count = spent
    probes = study_probes(config, method, model, train, labels) if config["purpose"] == "final" else []
    history = training.fit(method, checkpoint, partial(report, "training"), probes)

    measurements: dict[str, Any] = {}
    measured = {}
    if config["purpose"] == "final" and not history.diverged:
        report("measuring", history.epochs, history.epochs)
        settings = config["measure"]
        measured = {
            name: subset(len(split), settings["samples"], derived_seed(config, f"measured {name} samples"))
            for name, split in (("train", train), ("test", held_out))
        }
        measurements = measure(
            model,
            # one loss for every method, so that landscapes can be compared
            nn.CrossEntropyLoss(),
            train.take(measured["train"]),
            labels.take(measured["train"]),
            held_out.take(measured["test"]),
            settings,
            seed=derived_seed(config, "measurement"),
            with_surfaces=has_surfaces(config),
        )
        if settings["bound"]:
            measurements |= measure_bounds(
                model,
                (train.inputs, labels.observed),
                labels.is_wrong,
                (held_out.inputs, held_out.targets),
                seed=derived_seed(config, "bound"),
            )
    with store.run_file_written(path) as file:
        store.write_training(file, run, choice, labels, history, model, data=data, device=device)
        store.write_measurements(file, measurements, measured)
        record = store.record_of(file)
    # also those of a training that was begun with other settings
    for left_over in path.parent.glob(f"{path.stem}.*.ckpt"):
        left_over.unlink(missing_ok=True)
    return record


def fingerprint_of_training(run: Run, choice: Choice, data: str) -> str:
    """Tells whether a training may go on from a checkpoint: same settings, same choice, same data."""
    text = json.dumps([run.fingerprint, choice.hyperparameters, data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def has_surfaces(config: dict[str, Any]) -> bool:
    """Lines, planes and the spectral density are measured of this final run."""
    settings = config["measure"]
    return (
        config["noise"]["rate"] in settings["surface_rates"] and config["seed"] in settings["surface_seeds"]
    )


def _validation_split(
    train: Split, labels: NoisyLabels, fraction: float, seed: int
) -> tuple[Split, NoisyLabels, Split]:
    count = max(1, round(fraction * len(train)))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    kept, held = order[count:].sort().values, order[:count].sort().values
    held_out = replace(train.take(held), targets=labels.observed[held])
    return train.take(kept), labels.take(kept), held_out
