"""Checks that settings fit each other. Each check has one topic, and its error names the wrong field."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from analysis.plan.choice import loss_part, method_part
from analysis.plan.grid import all_trials, final_runs, slug
from analysis.plan.options import check_loss, check_method, check_model, check_noise, check_schedule
from analysis.plan.study import MAX_SEED, SEEDS_OF_A_CHOICE, MethodSettings, Study
from ncsam import LOSSES, METHODS
from ncsam.methods import remembers_samples

MAX_RUNS = 100_000
"""A study with more runs is refused as a slip."""
MAX_FILE_NAME = 200
"""Longest name of a run's file. File systems take 255 bytes, and checkpoints and temporary files have longer names."""


def check_consistency(study: Study, *, knows_all: bool = True, has_results: bool = False) -> None:
    """Checks that the settings of a study fit each other.

    Args:
        study: a study, each of whose values was checked by itself.
        knows_all: whether all methods, models, losses and kinds of noise are known. If the user's parts are not loaded,
            such as when results are only shown, their options are not checked.
        has_results: whether the study comes from a results folder. Earlier versions took probes together with
            `measured = false`, or after the last epoch of a method, and measured nothing there. Such results can still
            be read.

    Raises:
        ValueError: the first fault that was found; the message begins with the field.
    """
    _check_values_are_distinct("seeds", study.seeds)
    _check_values_are_distinct("noise.rates", study.noise.rates)
    _check_values_are_distinct("selection.seeds", study.selection.seeds)
    # checked before the grid is made, because the grid takes memory
    _check_size(study)
    _check_seeds_of_trials(study)
    _check_titles(study)
    if knows_all:
        check_model(study.model.name, study.model.options)
        check_noise(study.noise.kind, study.noise.options)
        check_schedule(study.training.schedule.name, study.training.schedule.options, study.training.epochs)
    for index, method in enumerate(study.methods):
        if method.like is not None:
            _check_likeness(f"methods.{index}", method, study)
        if knows_all:
            _check_method(f"methods.{index}", method, study)
            schedule = study.training.schedule
            check_schedule(schedule.name, schedule.options, method.epochs or study.training.epochs)
    _check_surfaces(study)
    _check_probes(study, has_results)
    _check_file_names(study)


def _check_values_are_distinct(field: str, values: Sequence[Hashable]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{field}: holds a value twice")


def _trial_count(study: Study) -> int:
    candidates = sum(
        method.candidate_count
        for method in study.methods
        if method.like is None and method.candidate_count > 1
    )
    choices = len(study.seeds) if study.selection.per_seed else 1
    return len(study.noise.rates) * len(study.selection.seeds) * choices * candidates


def _check_size(study: Study) -> None:
    finals, trials = len(study.seeds) * len(study.noise.rates) * len(study.methods), _trial_count(study)
    if finals + trials > MAX_RUNS:
        raise ValueError(
            f"seeds, noise.rates, methods: make {finals} runs and {trials} to choose between candidates; at most "
            f"{MAX_RUNS} are allowed, give fewer values"
        )


def _check_seeds_of_trials(study: Study) -> None:
    if study.selection.per_seed and max(study.selection.seeds) >= SEEDS_OF_A_CHOICE:
        raise ValueError(f"selection.seeds: with per_seed they must be below {SEEDS_OF_A_CHOICE}")
    seeds = {each for seed in study.seeds for each in study.selection.seeds_for(seed)}
    if max(seeds) >= MAX_SEED:
        raise ValueError(
            f"seeds: {max(study.seeds)} is too large for a choice for each seed (selection.per_seed); choose smaller "
            "ones"
        )
    overlap = set(study.seeds) & seeds
    if overlap:
        raise ValueError(f"selection.seeds: {min(overlap)} is also one of the study's seeds; choose others")


def _check_titles(study: Study) -> None:
    folders = [slug(method.title) for method in study.methods]
    for index, folder in enumerate(folders):
        if not folder:
            raise ValueError(
                f"methods.{index}.label: needs at least one of a-z or 0-9, for its folder's name"
            )
        if folder in folders[:index]:
            title = study.methods[index].title
            raise ValueError(
                f"methods.{index}.label: {title!r} has the folder {folder!r} of another; rename it"
            )


def _check_method(field: str, method: MethodSettings, study: Study) -> None:
    candidates = study.candidates(method)
    if method.model:
        settings = study.model_of(method)
        check_model(settings.name, settings.options, f"{field}.model")
    check_method(field, method.name, method.options, [method_part(candidate) for candidate in candidates])
    _check_loss(f"{field}.loss", method, [loss_part(candidate) for candidate in candidates])
    if method.mixup is not None and (
        method.loss.name != "cross-entropy" or METHODS[method.name].requires.classes
    ):
        raise ValueError(
            f"{field}.mixup: mixes classes, which needs cross-entropy and a method without temporary or true labels"
        )
    if study.training.compile and METHODS[method.name].requires.second_derivatives:
        raise ValueError(
            f"{field}.name: {method.name!r} differentiates the model twice, which a compiled one does not allow; leave "
            "training.compile out"
        )
    if study.measured and METHODS[method.name].predicts_by_several:
        raise ValueError(
            f"{field}.name: several networks of {method.name!r} predict together, and a landscape is one network's; "
            "write measured = false, or leave the method out"
        )
    if remembers_samples(LOSSES[method.loss.name]) and METHODS[method.name].requires.peer:
        raise ValueError(
            f"{field}.loss: {method.loss.name!r} remembers one network's predictions, and {method.name} trains two"
        )


def _check_loss(field: str, method: MethodSettings, candidates: list[dict[str, Any]]) -> None:
    """Checks the options of a loss; `candidates` are those that are chosen, perhaps by the method that this is like."""
    fixed = method.loss.fixed.options
    both = sorted(fixed.keys() & candidates[0].keys()) if candidates else []
    if both:
        raise ValueError(
            f"{field}.{both[0]}: is chosen by {method.like!r}, which this method is like; leave it out"
        )
    check_loss(field, method.loss, [{**fixed, **candidate} for candidate in candidates])


def _check_likeness(field: str, method: MethodSettings, study: Study) -> None:
    others = [m.title for m in study.methods if m.like is None]
    if method.like not in others:
        remedy = f"there is {', '.join(others)}" if others else "all are like others; leave like out of one"
        raise ValueError(f"{field}.like: no method {method.like!r} to follow; {remedy}")
    if method.candidate_count > 1:
        raise ValueError(f"{field}.like: leaves nothing to choose; give single values, not lists")


def _check_surfaces(study: Study) -> None:
    asked: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        "surface_rates": (study.measure.surface_rates, study.noise.rates),
        "surface_seeds": (study.measure.surface_seeds, study.seeds),
    }
    for field, (values, known) in asked.items():
        strange = [value for value in values if value not in known]
        if strange:
            raise ValueError(f"measure.{field}: {strange[0]} is not one of the study's {known}")
    empty = [field for field, (values, _) in asked.items() if not values]
    if len(empty) == 1:
        raise ValueError(f"measure.{empty[0]}: is empty, so that no run would get a surface; name some")


def _check_probes(study: Study, has_results: bool) -> None:
    if study.training.probe_epochs and not study.measured and not has_results:
        raise ValueError(
            "training.probe_epochs: measured = false leaves out the measurements along training too; leave one of the "
            "two out"
        )
    last = max(study.training.probe_epochs, default=0)
    if last > study.training.epochs:
        raise ValueError(
            f"training.probe_epochs: {last} comes after the last of {study.training.epochs} epochs"
        )
    for index, method in enumerate(study.methods):
        if method.epochs is not None and last > method.epochs and not has_results:
            raise ValueError(
                f"methods.{index}.epochs: training.probe_epochs has {last}, which comes after the last of "
                f"{method.epochs} epochs; leave it out there, or train for longer"
            )


def _check_file_names(study: Study) -> None:
    runs = final_runs(study)
    trials = [trial.path for trial in all_trials(study)]
    if len({run.path for run in runs}) < len(runs) or len(trials) < _trial_count(study):
        raise ValueError("noise.rates, methods: two values are too close to be told apart in file names")
    longest = max((part for path in trials for part in path.split("/")), key=len, default="")
    if len(longest) > MAX_FILE_NAME:
        raise ValueError(
            f"methods: a candidate's file name would have {len(longest)} characters, at most {MAX_FILE_NAME} are "
            "allowed; give single values for what need not be chosen"
        )
