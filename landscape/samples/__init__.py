"""Curvature of the losses of single samples."""

from landscape.samples.measurement import sample_curvature
from landscape.samples.result import MEASURES, GroupCurvature, SampleCurvature

__all__ = ["MEASURES", "GroupCurvature", "SampleCurvature", "sample_curvature"]
