"""Losses and accuracies at many points in weight space."""
