"""Measurements during training: perturbations and gradients, sharpness and curvature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from analysis.objectives import LABEL_WORDS, objective_of
from analysis.plan.run_config import RunConfig
from analysis.plan.seeds import derived_seed
from analysis.run.subject import subset
from analysis.store.history_columns import EIGENVALUE_TOL
from landscape import Objective, sharpness, top_eigenvalues
from landscape.tracking.measures import Kept, Look, Measure, Update, measure_named
from ncsam import Method, NoisyLabels, Split
from ncsam.probes import Probe, gradient_probe

MAX_PRODUCTS = 60
Predictor = Callable[[], nn.Module]
"""() -> the network that predicts at this point of the training."""
LANDSCAPE_METRICS = {
    f"probe_{name}_{loss}": (unit, f"{words}, {labels}")
    for loss, labels in LABEL_WORDS.items()
    for name, unit, words in (
        (
            "top_eigenvalue",
            "",
            "largest eigenvalue of the cross-entropy's Hessian, whatever the training loss",
        ),
        ("top_eigenvalue_residual", "", "residual norm of that eigenvalue"),
        (
            "sharpness",
            "nat",
            "largest rise of the cross-entropy found in the ball; NaN where the search did not converge",
        ),
    )
}
"""Name -> (unit, description) of what `landscape_probe` measures."""


def study_probes(
    config: RunConfig, method: Method, predictor: Predictor, train: Split, labels: NoisyLabels
) -> list[Probe]:
    """The probes of a run's configuration, on the same training samples for every method.

    The gradients are those of the method's model; the landscape is that of the network that predicts.
    """
    settings = config.training
    if config.measure is None or not settings.probe_epochs:
        return []
    samples = subset(len(train), settings.probe_samples, derived_seed(config, "probed samples"))
    samples = samples.to(train.pixels.device)
    inputs, part = train.batch(samples), labels.take(samples)
    return [
        gradient_probe(method, inputs, part.observed, part.clean, samples, epochs=settings.probe_epochs),
        landscape_probe(config, predictor, inputs, part, rho=config.measure.sharpness_rho),
    ]


def landscape_probe(
    config: RunConfig, predictor: Predictor, inputs: Tensor, labels: NoisyLabels, *, rho: float
) -> Probe:
    """A probe of the cross-entropy with observed and with true labels.

    It measures sharpness and top eigenvalue, and the study's `probe_measures` as `landscape.tracking` does. Each epoch
    is measured by itself, so that a resumed run finds what an undisturbed one does.
    """
    seed, trained = derived_seed(config, "probe"), predictor()
    layers = [name for name, parameter in trained.named_parameters() if parameter.requires_grad]
    measures = [measure_named(name, layers) for name in config.training.probe_measures]
    described = LANDSCAPE_METRICS | {
        f"probe_{metric}_{loss}": (unit, f"{words}, {labels_in_words}")
        for measure in measures
        for loss, labels_in_words in LABEL_WORDS.items()
        for metric, (unit, words) in measure.metrics.items()
    }

    def take() -> dict[str, float]:
        network = predictor()
        objectives = {
            "observed": objective_of(network, (inputs, labels.observed)),
            "clean": objective_of(network, (inputs, labels.clean)),
        }
        finite = {
            loss: objective for loss, objective in objectives.items() if math.isfinite(objective.value())
        }
        found = _extremes(finite, rho, seed)
        change = -objectives["observed"].gradient() if measures else None
        if change is not None and bool(change.isfinite().all()):
            found |= _tracked(finite, measures, change, seed)
        return dict.fromkeys(described, math.nan) | found

    return Probe(config.training.probe_epochs, take, described)


def _extremes(objectives: Mapping[str, Objective], rho: float, seed: int) -> dict[str, float]:
    """The largest eigenvalue and the sharpness of each objective."""
    metrics, start = {}, None
    for loss, objective in objectives.items():
        eigen = top_eigenvalues(
            objective, tol=EIGENVALUE_TOL, max_products=MAX_PRODUCTS, start=start, seed=seed
        )
        # the two Hessians share their Gauss-Newton part, which does not depend on the labels
        start = eigen.vectors
        worst = sharpness(objective, rho=rho, start=eigen)
        metrics[f"probe_top_eigenvalue_{loss}"] = float(eigen.values[0])
        metrics[f"probe_top_eigenvalue_residual_{loss}"] = float(eigen.residuals[0])
        metrics[f"probe_sharpness_{loss}"] = worst.value if worst.converged else math.nan
    return metrics


def _tracked(
    objectives: Mapping[str, Objective], measures: Sequence[Measure], change: Tensor, seed: int
) -> dict[str, float]:
    """The numbers of each measure and objective. Critical sharpness looks along `change`, a plain gradient step."""
    metrics = {}
    for measure in measures:
        for loss, objective in objectives.items():
            theta = objective.theta
            look = Look(objective, loss, theta, theta, Update(objective, change, 1.0), seed, Kept())
            for metric, value in measure.take(look).items():
                metrics[f"probe_{metric}_{loss}"] = value
    return metrics
