"""Measures of a trained model's curvature: eigenvalues, traces, spectral densities."""
