"""One run, from its configuration to its file: load, corrupt, train, measure, write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from analysis import store
from analysis.plan import Choice, Run
from analysis.plan.run_config import digest
from analysis.run.context import RunContext
from analysis.run.measurements import MEASURES, measure
from analysis.run.probes import study_probes
from analysis.run.run_data import RunData, load_run_data
from analysis.run.subject import Subject
from analysis.run.training import Training, new_model
from ncsam import History, Method

Report = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


def execute(
    run: Run, choice: Choice, context: RunContext, *, report: Report = lambda *_: None
) -> store.Record:
    """Trains and measures one run and writes its file. If there is a checkpoint, the training resumes from it.

    Args:
        run: the run.
        choice: its chosen hyper-parameters.
        context: where the run executes.
        report: called with the progress.

    Returns:
        The record of the run, which the study keeps.

    Raises:
        FileNotFoundError, ValueError: as for `load_dataset` and the store.
    """
    context.load_own_parts()
    config = run.config
    report("loading", 0, config.training.epochs)
    data = load_run_data(config, context)
    path = context.root / run.path
    model, history = _trained(run, choice, data, path, report)
    with store.run_file_written(path) as file:
        store.write_training(
            file, run, choice, data.labels, history, model, data=data.digest, device=context.device
        )
        if config.measure is not None and not history.diverged:
            report("measuring", history.epochs, history.epochs)
            subject = Subject(model, config, data)
            store.write_measurements(file, measure(subject), subject.samples)
        if config.measure is not None:
            versions = {name: found.version for name, found in MEASURES.items()}
            store.write_measured_by(file, versions, context.device)
        record = store.record_of(file)
    store.remove_checkpoints(path)
    return record


def _trained(
    run: Run, choice: Choice, data: RunData, path: Path, report: Report
) -> tuple[nn.Module, History]:
    """The network that predicts, and the history of its training."""
    config = run.config
    fingerprint = fingerprint_of_training(run, choice, data.digest)
    checkpoint = path.with_name(f"{path.stem}.{fingerprint[:12]}.ckpt")
    training = Training(config, data, fingerprint)
    spent, transition = 0.0, data.labels.transition
    if config.method.loss.transition == "estimated":
        transition, spent = training.estimated_transition(
            checkpoint.with_suffix(".transition.ckpt"), partial(report, "estimating transitions")
        )
    model = new_model(config, data, "weights")
    method = training.method(model, transition, choice.hyperparameters)
    probes = study_probes(config, method, partial(_predictor, method, model), data.train, data.labels)
    history = training.fit(method, checkpoint, partial(report, "training"), probes)
    # the network that estimates the transitions is a part of the method's cost
    history.metrics["gradients"] += spent
    return _predictor(method, model), history


def _predictor(method: Method, model: nn.Module) -> nn.Module:
    """The network whose accuracy is in the history: the trained model, or the average of its weights.

    The first one, where several predict together; such runs are not measured.
    """
    first = method.predictors()[0]
    if first is method.passes.module:
        # the method may have the model in a compiled wrapper
        return model
    # an average requires no gradient, and so could not be measured
    twin = copy.deepcopy(model)
    twin.load_state_dict(getattr(first, "_orig_mod", first).state_dict())
    return twin


def fingerprint_of_training(run: Run, choice: Choice, data: str) -> str:
    """A digest of settings, choice and data. A training resumes only from a checkpoint with the same digest."""
    return digest([run.config.training_fingerprint, choice.hyperparameters, data])
