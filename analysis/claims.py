"""The paper's claims (arXiv:2601.19947) as tests on a study's table of runs.

A claim names what was predicted before the data: which quantity, compared over what, with which sign. Methods
are found by what they are (`plain`, `sam`, `ncsam` with either sign), not by their labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics import Effect, combined_verdict, paired_effect, rank_correlation_between, trend
from ncsam import hyperparameters

POINTS = "share"


@dataclass(frozen=True)
class Claim:
    """A statement that data can contradict.

    Attributes:
        id: as in the project's list of claims.
        statement: what the paper says, in one sentence.
        place: where.
        prediction: what it means for measured quantities.
        test: table of runs -> the effects that decide it.
        controls: table of runs -> effects that explain it but do not enter the verdict.
    """

    id: str
    statement: str
    place: str
    prediction: str
    test: Callable[[pd.DataFrame], list[Effect]]
    controls: Callable[[pd.DataFrame], list[Effect]] | None = None


@dataclass(frozen=True)
class Judgement:
    """A claim with its effects and verdict."""

    id: str
    statement: str
    place: str
    prediction: str
    verdict: str
    effects: list[Effect]
    controls: list[Effect]


CLAIMS: dict[str, Claim] = {}


def register(claim: Claim) -> Claim:
    """Adds a claim to those that `judge` tests.

    Raises:
        ValueError: the id is taken.
    """
    if claim.id in CLAIMS:
        raise ValueError(f"id: claim {claim.id!r} is registered already")
    CLAIMS[claim.id] = claim
    return claim


def judge(table: pd.DataFrame) -> list[Judgement]:
    """Tests every registered claim; neither the order of rows nor that of files matters."""
    table = table.sort_values(["dataset", "noise_kind", "noise_rate", "method", "seed"], ignore_index=True)
    judgements = []
    for claim in CLAIMS.values():
        effects = claim.test(table)
        controls = claim.controls(table) if claim.controls else []
        judgements.append(
            Judgement(
                claim.id,
                claim.statement,
                claim.place,
                claim.prediction,
                combined_verdict([effect.verdict for effect in effects]),
                effects,
                controls,
            )
        )
    return judgements


def write_json(judgements: list[Judgement], path: Path) -> None:
    """Writes verdicts with all their numbers; NaN becomes null."""

    def plain(effect: Effect) -> dict[str, object]:
        numbers = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in asdict(effect).items()}
        return {**numbers, "verdict": effect.verdict}

    content = [
        {
            **{k: v for k, v in vars(judgement).items() if k not in ("effects", "controls")},
            "effects": [plain(effect) for effect in judgement.effects],
            "controls": [plain(effect) for effect in judgement.controls],
        }
        for judgement in judgements
    ]
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


VARIATIONS = ("draw", "labels", "direction", "schedule", "project", "warmup_with", "label_smoothing")
"""Hyper-parameters by which a run of NCSAM is a control and no longer the paper's method."""


def _is_the_papers(settings: dict[str, Any], sign: int) -> bool:
    defaults = hyperparameters("ncsam")
    return settings.get("compensation", 1) == sign and all(
        settings.get(name, defaults[name]) == defaults[name] for name in VARIATIONS
    )


def _select(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """Runs of `plain`, `sam`, `oracle-sam`, `ncsam` (the paper's sign) or `ncsam-` (the opposite one).

    With cross-entropy and unmixed labels. Of several variants of one method the first by label, so that a pair of
    runs enters a claim once.
    """
    name = method.removesuffix("-")
    chosen = table[
        (table["method_name"] == name) & (table["loss"] == "cross-entropy") & (table["mixup"] == 0)
    ]
    if name == "ncsam":
        sign = -1 if method.endswith("-") else 1
        papers = [_is_the_papers(json.loads(text), sign) for text in chosen["hyperparameters"]]
        chosen = chosen[np.array(papers, dtype=bool)]
    return chosen[chosen["method"] == chosen["method"].min()]


def _noisy(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["noise_rate"] > 0]


def _difference(
    table: pd.DataFrame, quantity: str, more: str, less: str, *, predicted: int = 1, unit: str = POINTS
) -> Effect:
    """Of two methods, paired by data set, noise and seed, over all runs with noise."""
    keys = ["dataset", "noise_kind", "noise_rate", "seed"]
    noisy = _noisy(table)
    pairs = _select(noisy, more).merge(_select(noisy, less), on=keys, suffixes=("_more", "_less"))
    values = pairs[f"{quantity}_more"] - pairs[f"{quantity}_less"]
    return paired_effect(
        f"{_words(quantity)}: {_title(more)} less {_title(less)}", values, predicted=predicted, unit=unit
    )


def _words(quantity: str) -> str:
    return quantity.replace("_", " ")


def _title(method: str) -> str:
    return {
        "plain": "SGD",
        "sam": "SAM",
        "oracle-sam": "oracle",
        "ncsam": "NCSAM",
        "ncsam-": "NCSAM, opposite sign",
    }[method]


def _trend(table: pd.DataFrame, quantity: str, method: str, *, predicted: int, logarithmic: bool) -> Effect:
    runs = _select(table, method)
    values = np.log10(runs[quantity].where(runs[quantity] > 0)) if logarithmic else runs[quantity]
    return trend(
        f"{_words(quantity)} against noise rate, {_title(method)}",
        runs["noise_rate"],
        values,
        predicted=predicted,
        unit="decades per 100% wrong labels" if logarithmic else "per 100% wrong labels",
    )


def _gap(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(late_decay=table["best_test_accuracy"] - table["test_accuracy"])


def _cosine_gain(table: pd.DataFrame, quantity: str, words: str) -> Effect:
    runs = _select(_noisy(table), "ncsam")
    return paired_effect(
        f"cosine with the true-label perturbation: {words} less SAM's, same batches",
        runs[f"mean_{quantity}"] - runs["mean_cos_compensated_sam_clean"],
        predicted=1,
        unit="cosine",
    )


def _correlation(table: pd.DataFrame, quantity: str) -> Effect:
    table = _noisy(table)
    return rank_correlation_between(
        f"{_words(quantity)} with clean test accuracy over methods, within noise rate",
        table["dataset"] + table["noise_kind"] + table["noise_rate"].astype(str),
        table["method"],
        table[quantity],
        table["test_accuracy"],
        predicted=-1,
    )


register(
    Claim(
        "L1",
        "Curvature and sharpness at the end of training grow with the noise rate.",
        "title; ours to test, the paper has no such experiment",
        "SGD's top Hessian eigenvalue and worst-case sharpness rise with the rate, for both labels' loss",
        lambda t: [
            _trend(t, f"{quantity}_{loss}", "plain", predicted=1, logarithmic=True)
            for loss in ("observed", "clean")
            for quantity in ("top_eigenvalue", "sharpness")
        ],
        lambda t: [
            _trend(t, f"{quantity}_clean", method, predicted=1, logarithmic=True)
            for method in ("sam", "ncsam")
            for quantity in ("top_eigenvalue", "sharpness")
        ],
    )
)
register(
    Claim(
        "L3",
        "Flatter means better: sharpness and clean test accuracy fall and rise together.",
        "introduction; ours to test",
        "within a noise rate above 0, methods that end sharper have lower clean test accuracy",
        lambda t: [_correlation(t, "sharpness_observed"), _correlation(t, "sharpness_clean")],
        lambda t: [_correlation(t, "top_eigenvalue_observed"), _correlation(t, "trace_observed")],
    )
)
register(
    Claim(
        "M2",
        "Label noise rotates SAM's perturbation away from the clean one.",
        "section 3, after Eq. 9",
        "in SAM's training the cosine of its perturbation and the true labels' falls with the noise rate (> 0)",
        lambda t: [_trend(_noisy(t), "mean_cos_sam_clean", "sam", predicted=-1, logarithmic=False)],
    )
)
register(
    Claim(
        "M3",
        "Compensation turns the perturbation back towards the clean one, as g* imitates the noise gradient.",
        "Eq. 11-13",
        "NCSAM's perturbation is nearer the true labels' than SAM's in the same batch, and cos(g*, g_noise) > 0",
        lambda t: [
            _cosine_gain(t, "cos_plus_clean", "NCSAM's (+s g*)"),
            paired_effect(
                "cosine of g* and the gradient of wrong labels",
                _select(_noisy(t), "ncsam")["mean_cos_gstar_noise"],
                predicted=1,
                unit="cosine",
            ),
        ],
        lambda t: [_cosine_gain(t, "cos_minus_clean", "the opposite sign's (-s g*)")],
    )
)
register(
    Claim(
        "G1",
        "NCSAM is more accurate on clean test data than SAM, and SAM than SGD.",
        "Tables I-III",
        "clean test accuracy after the last epoch, paired over noise rates above 0 and seeds",
        lambda t: [
            _difference(t, "test_accuracy", "ncsam", "sam"),
            _difference(t, "test_accuracy", "sam", "plain"),
        ],
        lambda t: [
            _difference(t, "best_test_accuracy", "ncsam", "sam"),
            _difference(t, "test_accuracy", "ncsam-", "ncsam"),
            _difference(t, "test_accuracy", "oracle-sam", "ncsam"),
        ],
    )
)
register(
    Claim(
        "G2",
        "SGD and SAM decay late in training, NCSAM does not.",
        "Fig. 1",
        "the best epoch's test accuracy less the last one's is larger for SGD and SAM than for NCSAM",
        lambda t: [_difference(_gap(t), "late_decay", method, "ncsam") for method in ("plain", "sam")],
    )
)
register(
    Claim(
        "G3",
        "NCSAM memorises fewer wrong labels than SAM and recovers more true ones.",
        "section 4",
        "at the last epoch NCSAM's memorised share is lower than SAM's, its recovered share higher",
        lambda t: [
            _difference(t, "memorized", "ncsam", "sam", predicted=-1),
            _difference(t, "recovered", "ncsam", "sam"),
        ],
        lambda t: [_difference(t, "memorized", "ncsam-", "ncsam", predicted=-1)],
    )
)
