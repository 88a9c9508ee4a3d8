"""Measures the stored weights of a finished run again, without training."""

from __future__ import annotations

from collections.abc import Collection

from analysis import store
from analysis.plan import Run
from analysis.run.context import RunContext
from analysis.run.measurements import MEASURES, measure
from analysis.run.one_run import Report
from analysis.run.run_data import load_run_data
from analysis.run.subject import Subject
from analysis.run.training import new_model


def measure_again(
    run: Run, names: Collection[str], context: RunContext, *, report: Report = lambda *_: None
) -> store.Record:
    """Measures the stored weights of a run again. The results replace earlier ones; nothing else in the file changes.

    A new file replaces the old one in one step, so that a kill leaves one of the two whole. A run that diverged is not
    measured; only its settings are written.

    Args:
        run: the run, with the new settings.
        names: names of `MEASURES` that are measured.
        context, report: as for `execute`.

    Raises:
        FileNotFoundError, ValueError: as for `execute`.
    """
    context.load_own_parts()
    path, config = context.root / run.path, run.config
    report("loading", 0, 1)
    subject = None
    if not store.read_config(path).diverged:
        data = load_run_data(config, context)
        model = new_model(config, data, "weights")
        store.load_weights(path, model)
        subject = Subject(model, config, data)
    report("measuring", 0, 1)
    results = measure(subject, names) if subject else {}
    with store.run_file_changed(path) as file:
        store.remove_groups(file, [group for name in names for group in MEASURES[name].groups])
        store.write_run_config(file["config"], config)
        if subject:
            store.write_measurements(file, results, subject.samples)
        store.write_measured_by(file, {name: MEASURES[name].version for name in names}, context.device)
        return store.record_of(file)
