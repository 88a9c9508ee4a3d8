"""Measurements during training: perturbations and gradients, sharpness and curvature."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from analysis.objectives import objective_of
from analysis.plan.run_config import RunConfig
from analysis.plan.seeds import derived_seed
from analysis.run.measurements import subset
from analysis.store.history_columns import EIGENVALUE_TOL
from landscape import Objective, sharpness, top_eigenvalues
from landscape.tracking.measures import Kept, Look, Update, measure_named
from ncsam import Method, NoisyLabels, Split
from ncsam.probes import Probe, gradient_probe

MAX_PRODUCTS = 60
Predictor = Callable[[], nn.Module]
"""() -> the network that predicts at this point of the training."""
LANDSCAPE_METRICS = {
    f"probe_{name}_{loss}": (unit, f"{words}, {labels} labels")
    for loss, labels in (("observed", "observed"), ("clean", "true"))
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
    epochs = settings.probe_epochs
    return [
        gradient_probe(method, inputs, part.observed, part.clean, samples, epochs=epochs),
        landscape_probe(config, predictor, inputs, part, rho=config.measure.sharpness_rho),
        *(
            tracking_probe(config, predictor, inputs, part, measure=measure)
            for measure in settings.probe_measures
        ),
    ]


def landscape_probe(
    config: RunConfig, predictor: Predictor, inputs: Tensor, labels: NoisyLabels, *, rho: float
) -> Probe:
    """A probe of sharpness and top eigenvalue, of the cross-entropy with observed and with true labels."""

    def measure() -> dict[str, float]:
        metrics = dict.fromkeys(LANDSCAPE_METRICS, float("nan"))
        start = None
        for loss, targets in (("observed", labels.observed), ("clean", labels.clean)):
            objective = objective_of(predictor(), (inputs, targets))
            if not math.isfinite(objective.value()):
                continue
            eigen = top_eigenvalues(
                objective,
                tol=EIGENVALUE_TOL,
                max_products=MAX_PRODUCTS,
                start=start,
                seed=derived_seed(config, "probe"),
            )
            # the two Hessians share their Gauss-Newton part, which does not depend on the labels
            start = eigen.vectors
            worst = sharpness(objective, rho=rho, start=eigen)
            metrics[f"probe_top_eigenvalue_{loss}"] = float(eigen.values[0])
            metrics[f"probe_top_eigenvalue_residual_{loss}"] = float(eigen.residuals[0])
            metrics[f"probe_sharpness_{loss}"] = worst.value if worst.converged else math.nan
        return metrics

    return Probe(config.training.probe_epochs, measure, LANDSCAPE_METRICS)


def tracking_probe(
    config: RunConfig, predictor: Predictor, inputs: Tensor, labels: NoisyLabels, *, measure: str
) -> Probe:
    """A measure of `landscape.tracking` of the cross-entropy with observed and with true labels.

    The update along which critical sharpness looks is a plain gradient step on the observed labels. Each epoch is
    measured by itself, so that a resumed run finds what an undisturbed one does.
    """
    seed = derived_seed(config, "probe")

    def objectives() -> dict[str, Objective]:
        return {
            loss: objective_of(predictor(), (inputs, targets))
            for loss, targets in (("observed", labels.observed), ("clean", labels.clean))
        }

    described = {
        f"probe_{metric}_{loss}": (unit, f"{words}, {kind} labels")
        for loss, kind in (("observed", "observed"), ("clean", "true"))
        for metric, (unit, words) in measure_named(measure, objectives()).metrics.items()
    }

    def take() -> dict[str, float]:
        found = dict.fromkeys(described, math.nan)
        here = objectives()
        change = -here["observed"].gradient()
        for loss, objective in here.items():
            if not (bool(change.isfinite().all()) and math.isfinite(objective.value())):
                continue
            theta = objective.theta
            look = Look(objective, loss, theta, theta, Update(objective, change, 1.0), seed, Kept())
            for metric, value in measure_named(measure, here).take(look).items():
                found[f"probe_{metric}_{loss}"] = value
        return found

    return Probe(config.training.probe_epochs, take, described)
