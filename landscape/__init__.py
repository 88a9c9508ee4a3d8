"""The loss landscape around a trained model: curvature, surfaces, sharpness, each with its error.

objective = Objective(model, loss_fn, (inputs, targets))
eigen = top_eigenvalues(objective, k=3)          # .values .residuals .converged
estimate = trace(objective, deflate=eigen)       # .value .standard_error
plane = surface(objective, filter_normalized_directions(objective, 2))
"""

from landscape.directions import Directions, filter_normalized_directions
from landscape.hessian import TopEigenvalues, TraceEstimate, top_eigenvalues, trace
from landscape.objective import Evaluation, Objective
from landscape.sharpness import Sharpness, sharpness
from landscape.storage import load, save
from landscape.surface import Line, Surface, line, surface

__all__ = [
    "Directions",
    "Evaluation",
    "Line",
    "Objective",
    "Sharpness",
    "Surface",
    "TopEigenvalues",
    "TraceEstimate",
    "filter_normalized_directions",
    "line",
    "load",
    "save",
    "sharpness",
    "surface",
    "top_eigenvalues",
    "trace",
]
