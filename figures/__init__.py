"""Figures from stored results alone. Each is a pure function from tables or surfaces to a matplotlib Figure."""

from figures.alignment import alignment
from figures.animation import Animation
from figures.contact_sheet import contact_sheet
from figures.critical_difference import critical_difference
from figures.curvature import curvature
from figures.distributions import distributions
from figures.epochs import sharpness_over_epochs
from figures.estimates import estimates
from figures.forest import forest
from figures.interactive import interactive
from figures.label_scores import label_scores
from figures.lines import lines
from figures.noise_rate import Panel, against_noise_rate
from figures.of_results import draw
from figures.paraview import write_surface, write_trajectory
from figures.paths import paths
from figures.shaded_relief import shaded_relief
from figures.sharpness_accuracy import sharpness_accuracy
from figures.spectra import spectra
from figures.spectral_densities import spectral_densities
from figures.style import ONE_COLUMN, TWO_COLUMNS, Style
from figures.surfaces import contours, relief
from figures.topology import basins
from figures.tracks import tracks
from figures.training_curves import training_curves
from figures.training_loss import against_training_loss
from figures.trajectories import trajectories

__all__ = [
    "ONE_COLUMN",
    "TWO_COLUMNS",
    "Animation",
    "Panel",
    "Style",
    "against_noise_rate",
    "against_training_loss",
    "alignment",
    "basins",
    "contact_sheet",
    "contours",
    "critical_difference",
    "curvature",
    "distributions",
    "draw",
    "estimates",
    "forest",
    "interactive",
    "label_scores",
    "lines",
    "paths",
    "relief",
    "shaded_relief",
    "sharpness_accuracy",
    "sharpness_over_epochs",
    "spectra",
    "spectral_densities",
    "tracks",
    "training_curves",
    "trajectories",
    "write_surface",
    "write_trajectory",
]
