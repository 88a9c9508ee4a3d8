"""A study -> its runs: data set x noise x method x seed."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from analysis.plan.study import MethodSettings, NoiseSettings, Study


@dataclass(frozen=True)
class Run:
    """One training with its measurements, or one training of a candidate.

    Attributes:
        config: all that decides the result, as plain values. `method.candidates` holds what may be chosen;
            `purpose` is `"final"` or `"selection"`.
        path: of the result file within the study folder.
    """

    config: dict[str, Any]
    path: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration: tells a finished run from a stale one."""
        text = json.dumps(self.config, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def title(self) -> str:
        """For people: method, noise, seed."""
        noise, method = self.config["noise"], self.config["method"]
        return f"{method['label']} {noise_title(noise)} {100 * noise['rate']:.4g}% seed {self.config['seed']}"


def final_runs(study: Study) -> list[Run]:
    """The runs whose results are judged, in the order of the study file."""
    return [
        _run(study, rate, method, seed, study.candidates(method), purpose="final", folder="runs")
        for rate in study.noise.rates
        for method in study.methods
        for seed in study.seeds
    ]


def selection_runs(study: Study, final: Run) -> list[Run]:
    """The runs that decide between a final run's candidates; none if there is only one.

    For a method that is like another they are the other's.
    """
    config = final.config
    if len(config["method"]["candidates"]) == 1:
        return []
    title = config["method"]["like"] or config["method"]["label"]
    method = next(m for m in study.methods if m.title == title)
    return [
        _run(
            study,
            config["noise"]["rate"],
            method,
            seed,
            [candidate],
            purpose="selection",
            folder="selection",
            below=slug(
                "-".join(f"{key}-{value}".replace("--", "-minus-") for key, value in candidate.items())
            ),
        )
        for candidate in method.candidates()
        for seed in study.selection.seeds
    ]


def _run(
    study: Study,
    rate: float,
    method: MethodSettings,
    seed: int,
    candidates: list[dict[str, Any]],
    *,
    purpose: str,
    folder: str,
    below: str = "",
) -> Run:
    config = {
        "purpose": purpose,
        "study": study.name,
        "dataset": study.dataset,
        "train_samples": study.train_samples,
        "test_samples": study.test_samples,
        "image_size": study.image_size,
        "model": study.model.model_dump(),
        "noise": _noise(study.noise, rate),
        "method": {
            "label": method.title,
            "name": method.name,
            "like": method.like,
            "candidates": candidates,
            "loss": method.loss.model_dump(),
            "mixup": method.mixup,
        },
        "seed": seed,
        "training": study.training.model_dump(),
        "selection": study.selection.model_dump(),
    }
    if purpose == "final":
        config["measure"] = study.measure.model_dump()
    parts = [
        folder,
        study.dataset,
        f"{study.noise.kind}-{rate:.15g}",
        slug(method.title),
        below,
        f"seed{seed}.h5",
    ]
    return Run(config, "/".join(part for part in parts if part))


def _noise(settings: NoiseSettings, rate: float) -> dict[str, Any]:
    # the configurations of runs whose labels stay have no such key, from before there was one
    redraw = {} if settings.redraw == "never" else {"redraw": settings.redraw}
    return {"kind": settings.kind, "rate": rate, "options": settings.model_extra or {}, **redraw}


def noise_title(noise: dict[str, Any]) -> str:
    """How tables and figures call a kind of noise: labels that are drawn anew at each step are another kind.

    Args:
        noise: a run's configuration of it.
    """
    redrawn = noise.get("redraw", "never") != "never"
    return f"{noise['kind']}, redrawn each {noise['redraw']}" if redrawn else str(noise["kind"])


def slug(text: str) -> str:
    """The text as part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def first_difference(stored: Any, planned: Any, field: str = "") -> tuple[str, Any, Any]:
    """Where two configurations differ first, and what they have there."""
    if isinstance(stored, dict) and isinstance(planned, dict):
        for key in sorted(stored.keys() | planned.keys()):
            # as text: 1 and 1.0 are equal, and yet not the same setting
            if _as_text(stored.get(key)) != _as_text(planned.get(key)):
                return first_difference(stored.get(key), planned.get(key), f"{field}.{key}".strip("."))
    return field, stored, planned


def _as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
