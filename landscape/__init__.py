"""The loss landscape around a trained model: curvature, surfaces, sharpness, each with its error.

::

    objective = Objective(model, loss_fn, (inputs, targets))
    eigen = top_eigenvalues(objective, k=3)          # .values .residuals .converged
    estimate = trace(objective, deflate=eigen)       # .value .standard_error .low .high
    spectrum = spectral_density(objective)           # .density .density_error .outliers
    plane = surface(objective, filter_normalized_directions(objective, 2))
"""

from landscape import tasks, tracking
from landscape.connectivity.matching import Matching, matched
from landscape.connectivity.weight_paths import Bend, Path, low_loss_bend, path, paths
from landscape.curvature.density import SpectralDensity, spectral_density, spectral_measure
from landscape.curvature.diagonal import MatrixDiagonal, diagonal
from landscape.curvature.eigenvalues import TopEigenvalues, top_eigenvalues
from landscape.curvature.flatness import RelativeFlatness, relative_flatness
from landscape.curvature.gradient_noise import GradientNoise, gradient_noise
from landscape.curvature.parts import CurvatureParts, curvature_parts, curvature_parts_by_labels
from landscape.curvature.traces import LayerTraces, TraceEstimate, layer_traces, trace
from landscape.data.allocator import tune_allocator
from landscape.loss.loss_and_accuracy import Evaluation
from landscape.loss.objective import Objective
from landscape.matrices import EmpiricalFisher, FunctionalHessian, GaussNewton, Hessian
from landscape.perturbations.average import AverageSharpness, average_sharpness
from landscape.perturbations.critical_sharpness import CriticalSharpness, critical_sharpness
from landscape.perturbations.pac_bayes import NoiseTolerance, pac_bayes_sigma
from landscape.perturbations.profile import SharpnessProfile, sharpness_profile
from landscape.perturbations.worst_case import Sharpness, sharpness
from landscape.results.storage import load, save
from landscape.samples import GroupCurvature, SampleCurvature, sample_curvature
from landscape.sampling_errors.enough import EnoughSamples, enough_samples
from landscape.sampling_errors.measured import sampling_error
from landscape.sampling_errors.result import SamplingError
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
from landscape.slices.one_dimensional import Line, line, lines
from landscape.slices.topology import Topology, TopologyDraws, topology, topology_draws
from landscape.slices.trajectory import Trajectory, projected_trajectory, shared_plane, trajectory_directions
from landscape.slices.two_dimensional import Surface, surface, surfaces
from landscape.tracking.track import Track
from landscape.tracking.tracker import Tracker

__all__ = [
    "AverageSharpness",
    "Bend",
    "CriticalSharpness",
    "CurvatureParts",
    "Directions",
    "EmpiricalFisher",
    "EnoughSamples",
    "Evaluation",
    "FunctionalHessian",
    "GaussNewton",
    "GradientNoise",
    "GroupCurvature",
    "Hessian",
    "LayerTraces",
    "Line",
    "Matching",
    "MatrixDiagonal",
    "NoiseTolerance",
    "Objective",
    "Path",
    "RelativeFlatness",
    "SampleCurvature",
    "SamplingError",
    "Sharpness",
    "SharpnessProfile",
    "SpectralDensity",
    "Surface",
    "TopEigenvalues",
    "Topology",
    "TopologyDraws",
    "TraceEstimate",
    "Track",
    "Tracker",
    "Trajectory",
    "average_sharpness",
    "combined",
    "critical_sharpness",
    "curvature_parts",
    "curvature_parts_by_labels",
    "diagonal",
    "direction_to",
    "eigenvector_directions",
    "enough_samples",
    "filter_normalized_directions",
    "given_direction",
    "gradient_direction",
    "gradient_noise",
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
    "sample_curvature",
    "sampling_error",
    "save",
    "shared_plane",
    "sharpness",
    "sharpness_profile",
    "spectral_density",
    "spectral_measure",
    "surface",
    "surfaces",
    "tasks",
    "top_eigenvalues",
    "topology",
    "topology_draws",
    "trace",
    "tracking",
    "trajectory_directions",
    "tune_allocator",
]
