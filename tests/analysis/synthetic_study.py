"""A table of runs with a known truth, as a study would leave it, and its judgement."""

import json

import numpy as np
import pandas as pd

from analysis.claims import CLAIMS, judge
from ncsam.alignment import ALIGNMENT_METRICS
from ncsam.probes import GROUPS

METHODS = {
    "SGD": ("plain", {}),
    "SAM": ("sam", {"rho": 0.2}),
    "SAM, rho 0.5": ("sam", {"rho": 0.5}),
    "NCSAM": ("ncsam", {"rho": 0.2, "strength": 0.1, "flip_ratio": 0.4}),
    "opposite": ("ncsam", {"rho": 0.2, "strength": 0.1, "flip_ratio": 0.4, "compensation": -1}),
    "constant": ("ncsam", {"rho": 0.2, "strength": 0.1, "flip_ratio": 0.4, "schedule": "constant"}),
    "random": ("ncsam", {"rho": 0.2, "strength": 0.1, "flip_ratio": 0.4, "direction": "random"}),
    "bare": ("ncsam", {"rho": 0.2, "strength": 0.0, "flip_ratio": 0.4}),
    "oracle": ("oracle-sam", {"rho": 0.2}),
    # the method with other settings, of which A1 and A3 ask
    **{
        f"flip {flip}": ("ncsam", {"rho": 0.2, "strength": 0.1, "flip_ratio": flip})
        for flip in (0.2, 0.3, 0.5, 0.6)
    },
    **{f"kappa {k}": ("ncsam", {"rho": 0.2, "strength": k, "flip_ratio": 0.4}) for k in (0.2, 0.4)},
}
QUALITY = {
    **{"SGD": 0.0, "SAM": 0.1, "SAM, rho 0.5": 0.08, "NCSAM": 0.2, "opposite": 0.05, "constant": 0.12},
    **{
        "random": 0.15,
        "bare": 0.13,
        "oracle": 0.25,
        "flip 0.2": 0.16,
        "flip 0.3": 0.18,
        "flip 0.5": 0.17,
        "flip 0.6": 0.1,
    },
    **{"kappa 0.2": 0.14, "kappa 0.4": 0.11},
}
LOSSES = ("zero_one", "cross_entropy")


def table(seed=0, noise=1e-3, seeds=6, **planted):
    """A study of 4 noise rates in which every claim of the paper is true, and neither rival, but for `planted`."""
    rng = np.random.default_rng(seed)
    quality = QUALITY | planted.get("quality", {})
    rows = [
        _row(label, rate, number, quality[label], planted)
        for label in METHODS
        for rate in (0.0, 0.2, 0.4, 0.6)
        for number in range(seeds)
    ]
    exact = ("noise_rate", "realised_noise_rate")
    return pd.DataFrame(
        [
            {
                k: v + noise * rng.normal() if isinstance(v, float) and k not in exact else v
                for k, v in row.items()
            }
            for row in rows
        ]
    )


def _row(label, rate, number, quality, planted):
    name, settings = METHODS[label]
    flat = quality * rate
    row = {
        "dataset": "d",
        "noise_kind": "symmetric",
        "noise_rate": rate,
        "method": label,
        "seed": number,
        "method_name": name,
        "loss": "cross-entropy",
        "mixup": 0,
        "label_smoothing": 0,
        "candidates": 4 if label in ("SAM", "NCSAM") else 1,
        "classes": 10,
        "diverged": False,
        "hyperparameters": json.dumps(settings),
        "tuned": json.dumps(["rho"] if label in ("SAM", "NCSAM") else []),
        "realised_noise_rate": rate,
        "test_accuracy": 0.9 - 0.5 * rate + flat,
        "best_test_accuracy": 0.95 - 0.2 * rate,
        "test_loss": 0.5 + rate - flat,
        "train_loss": 0.1 + 0.01 * quality**2,
        "memorized": rate - flat,
        "recovered": 0.3 + flat,
    }
    growth = planted.get("growth", 1.0)
    for loss in ("observed", "clean"):
        # what SAM flattens more is the noisy landscape
        share = 1.0 if loss == "clean" or label != "SAM" else 1.3
        row[f"top_eigenvalue_{loss}"] = 3 + growth * 10 * rate - 10 * flat
        row[f"sharpness_{loss}"] = (3 + growth * 5 * rate) * 10 ** (-2 * flat) / share
        row[f"sharpness_{loss}_converged"] = True
        row[f"trace_{loss}"] = 20 + 50 * rate
    row |= {f"mean_{metric}": np.nan for metric in ALIGNMENT_METRICS}
    row["mean_perturbation_norm"] = settings.get("rho", np.nan)
    row |= {"mean_cos_sam_clean": 1 - rate, "mean_cos_clean_noise": -0.2 - 0.1 * rate}
    for group in GROUPS:
        row[f"mean_probe_damping_{group}"] = 0.2
    if name == "ncsam":
        row["mean_cos_compensated_sam_clean"] = 1 - rate
        row["mean_cos_plus_clean"] = 1 - rate + planted.get("gain", 0.2)
        row["mean_cos_minus_clean"] = 1 - rate - 0.2
        row["mean_cos_gstar_noise"] = planted.get("gstar", 0.3)
        row["mean_draw_precision"] = rate + 0.1
        row["mean_temporary_label_precision"] = (rate + 0.1) / 9 + 0.2
    for loss in LOSSES:
        row[f"bound_{loss}_slack"] = planted.get("slack", 5.0) + rate
        row[f"bound_{loss}_slack_converged"] = planted.get("found", True)
        for term in ("right", "empirical", "sampling", "complexity"):
            row[f"bound_{loss}_{term}"] = 2 + rate - flat
        row[f"assumption_{loss}_gap"] = planted.get("gap", 0.05)
    return row


def judged(runs, *names):
    """Id -> judgement of the named claims, or of all."""
    return {j.claim.id: j for j in judge(runs, [CLAIMS[name] for name in names] if names else None)}


def verdict(runs, name):
    """The verdict of one claim."""
    return judged(runs, name)[name].verdict
