"""The loss landscape around a trained model: curvature, surfaces, sharpness, each with its error.

::

    objective = Objective(model, loss_fn, (inputs, targets))
    eigen = top_eigenvalues(objective, k=3)          # .values .residuals .converged
    estimate = trace(objective, deflate=eigen)       # .value .standard_error .low .high
    spectrum = spectral_density(objective)           # .density .density_error .outliers
    plane = surface(objective, filter_normalized_directions(objective, 2))
"""

from landscape.connectivity.matching import Matching, matched
from landscape.connectivity.weight_paths import Bend, Path, low_loss_bend, path, paths
from landscape.curvature.density import SpectralDensity, spectral_density, spectral_measure
from landscape.curvature.eigenvalues import (
    LayerTraces,
    TopEigenvalues,
    TraceEstimate,
    layer_traces,
    top_eigenvalues,
    trace,
)
from landscape.curvature.flatness import RelativeFlatness, relative_flatness
from landscape.curvature.parts import CurvatureParts, curvature_parts
from landscape.loss.allocator import tune_allocator
from landscape.loss.objective import Evaluation, Objective
from landscape.perturbations.gaussian import (
    AverageSharpness,
    NoiseTolerance,
    average_sharpness,
    pac_bayes_sigma,
)
from landscape.perturbations.profile import SharpnessProfile, sharpness_profile
from landscape.perturbations.worst_case import Sharpness, sharpness
from landscape.results.storage import load, save
from landscape.slices.directions import (
    Directions,
    combined,
    direction_to,
    eigenvector_directions,
    filter_normalized_directions,
    given_direction,
    gradient_direction,
    normalized,
    orthogonalized,
    random_directions,
)
from landscape.slices.planes import Line, Surface, line, lines, surface, surfaces
from landscape.slices.trajectory import Trajectory, projected_trajectory, trajectory_directions

__all__ = [
    "AverageSharpness",
    "Bend",
    "CurvatureParts",
    "Directions",
    "Evaluation",
    "LayerTraces",
    "Line",
    "Matching",
    "NoiseTolerance",
    "Objective",
    "Path",
    "RelativeFlatness",
    "Sharpness",
    "SharpnessProfile",
    "SpectralDensity",
    "Surface",
    "TopEigenvalues",
    "TraceEstimate",
    "Trajectory",
    "average_sharpness",
    "combined",
    "curvature_parts",
    "direction_to",
    "eigenvector_directions",
    "filter_normalized_directions",
    "given_direction",
    "gradient_direction",
    "layer_traces",
    "line",
    "lines",
    "load",
    "low_loss_bend",
    "matched",
    "normalized",
    "orthogonalized",
    "pac_bayes_sigma",
    "path",
    "paths",
    "projected_trajectory",
    "random_directions",
    "relative_flatness",
    "save",
    "sharpness",
    "sharpness_profile",
    "spectral_density",
    "spectral_measure",
    "surface",
    "surfaces",
    "top_eigenvalues",
    "trace",
    "trajectory_directions",
    "tune_allocator",
]
