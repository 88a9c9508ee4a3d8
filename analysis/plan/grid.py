"""The grid of a study's runs: data set x noise x method x seed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from analysis.plan.run_config import RunConfig, RunMethod, RunNoise
from analysis.plan.study import MethodSettings, Study
from landscape.results.wording import percent


@dataclass(frozen=True)
class Run:
    """One training with its measurements, or one training of a candidate.

    Attributes:
        config: all settings that decide the result.
        path: path of the result file within the study folder.
    """

    config: RunConfig
    path: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration."""
        return self.config.fingerprint

    @property
    def title(self) -> str:
        """The title of the run in messages: method, noise, seed."""
        noise = self.config.noise
        return f"{self.config.method.label} {noise.title} {percent(noise.rate)} seed {self.config.seed}"


def final_runs(study: Study) -> list[Run]:
    """The runs whose results are judged, in the order of the study file."""
    return [
        _final_run(study, rate, method, seed)
        for rate in study.noise.rates
        for method in study.methods
        for seed in study.seeds
    ]


def selection_runs(study: Study, final: Run) -> list[Run]:
    """The runs that decide between a final run's candidates; none if there is only one.

    If a method is `like` another one, the trials are those of the other method.
    """
    config = final.config
    if len(config.method.candidates) == 1:
        return []
    title = config.method.like or config.method.label
    method = next(m for m in study.methods if m.title == title)
    return [
        _selection_run(study, config.noise.rate, method, seed, candidate)
        for candidate in method.candidates()
        for seed in study.selection.seeds_for(config.seed)
    ]


def all_trials(study: Study) -> list[Run]:
    """The trainings that compare candidates, for all runs of a study. Several runs share their trials."""
    trials = (trial for run in final_runs(study) for trial in selection_runs(study, run))
    return list({trial.path: trial for trial in trials}.values())


def _final_run(study: Study, rate: float, method: MethodSettings, seed: int) -> Run:
    config = RunConfig(
        purpose="final",
        method=_run_method(study, method, study.candidates(method)),
        seed=seed,
        measure=study.measure if study.measured else None,
        **_shared(study, rate, method),
    )
    return Run(config, f"runs/{_folder(config)}/seed{seed}.h5")


def _selection_run(
    study: Study, rate: float, method: MethodSettings, seed: int, candidate: dict[str, Any]
) -> Run:
    config = RunConfig(
        purpose="selection",
        method=_run_method(study, method, [candidate]),
        seed=seed,
        **_shared(study, rate, method),
    )
    words = "-".join(f"{key}-{value}".replace("--", "-minus-") for key, value in candidate.items())
    return Run(config, f"selection/{_folder(config)}/{slug(words)}/seed{seed}.h5")


def _shared(study: Study, rate: float, method: MethodSettings) -> dict[str, Any]:
    """The settings that all runs of a method at one noise rate share."""
    return {
        "study": study.name,
        "dataset": study.dataset,
        "train_samples": study.train_samples,
        "test_samples": study.test_samples,
        "image_size": study.image_size,
        "model": study.model_of(method),
        "noise": RunNoise(
            kind=study.noise.kind, rate=rate, options=study.noise.options, redraw=study.noise.redraw
        ),
        "training": study.training_of(method),
        "selection": study.selection,
        "own_parts": sorted(study.own_parts.values()) or None,
    }


def _run_method(study: Study, method: MethodSettings, candidates: list[dict[str, Any]]) -> RunMethod:
    return RunMethod(
        label=method.title,
        name=method.name,
        like=method.like,
        candidates=candidates,
        loss=method.loss.fixed,
        mixup=method.mixup,
        changed=study.changed_by(method),
    )


def _folder(config: RunConfig) -> str:
    return f"{config.dataset}/{config.noise.kind}-{config.noise.rate:.15g}/{slug(config.method.label)}"


def slug(text: str) -> str:
    """The text as part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
