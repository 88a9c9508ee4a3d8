"""Eigenpairs, traces and spectral measures of any symmetric operator. Nothing here knows a model."""
